//! Commits in version 10, which names topics by id and by nothing else. The generated messages end
//! before it, so that answers are compared byte by byte.

use std::fmt::Write as _;
use std::time::Duration;

use uuid::Uuid;

use super::groups::{LOADING, NOT_COORDINATOR, coordinator};
use super::topics::{fresh, remove};
use super::wire::{Result, Wire};

const COMMIT: i16 = 8;
const FETCH: i16 = 9;
const VERSION: i16 = 10;

/// Writes flexible messages.
#[derive(Clone, Default)]
struct Body(Vec<u8>);

impl Body {
    fn length(mut self, length: Option<usize>) -> Self {
        let mut rest = length.map_or(0, |length| length + 1);
        while rest >= 0x80 {
            self.0.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        self
    }

    fn text(self, text: &str) -> Self {
        self.length(Some(text.len())).raw(text.as_bytes())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn int(self, value: i32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    fn no_tags(self) -> Self {
        self.raw(&[0])
    }
}

/// Commits offset 5 of one partition of each topic.
fn commit(group: &str, member: &str, epoch: i32, topics: &[(Uuid, i32, &str)]) -> Body {
    let body = Body::default().text(group).int(epoch).text(member);
    let body = body.length(None).length(Some(topics.len()));
    let body = topics.iter().fold(body, |body, (id, partition, note)| {
        let body = body.raw(id.as_bytes()).length(Some(1)).int(*partition);
        let body = body.raw(&5_i64.to_be_bytes()).int(0).text(note);
        body.no_tags().no_tags()
    });
    body.no_tags()
}

/// Asks for partitions 0 and 1 of the topics, or for everything.
fn fetch(groups: &[&str], member: Option<(&str, i32)>, topics: Option<&[Uuid]>) -> Body {
    let body = Body::default().length(Some(groups.len()));
    let body = groups.iter().fold(body, |body, group| {
        let body = body.text(group);
        let body = match member {
            Some((id, epoch)) => body.text(id).int(epoch),
            None => body.length(None).int(-1),
        };
        let body = body.length(topics.map(<[Uuid]>::len));
        let topics = topics.into_iter().flatten();
        let body = topics.fold(body, |body, id| {
            let body = body.raw(id.as_bytes()).length(Some(2));
            body.int(0).int(1).no_tags()
        });
        body.no_tags()
    });
    // Offsets that are not settled are waited for.
    body.raw(&[1]).no_tags()
}

/// The answer as text, in which names stand for what differs from run to run.
async fn ask(wire: &mut Wire, key: i16, body: Body, names: &[(&str, &[u8])]) -> Result<String> {
    for _ in 0..200 {
        let answer = wire.ask_bytes(key, VERSION, &body.0).await?;
        // The coordinator is not ready: for a partition or for the group.
        let refusal = |code: i16| [code.to_be_bytes().as_slice(), &[0, 0, 0]].concat();
        let mut codes = LOADING..=NOT_COORDINATOR;
        if codes.any(|code| answer.ends_with(&refusal(code))) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let mut told = answer.escape_ascii().to_string();
        for (name, bytes) in names {
            told = told.replace(&bytes.escape_ascii().to_string(), name);
        }
        return Ok(told);
    }
    Err("no coordinator".into())
}

pub(super) async fn commits(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    let id = fresh(wire, topic, 2).await?;
    coordinator(wire, topic).await?;
    let (stranger, nil) = (Uuid::from_u128(99), Uuid::nil());
    let (unknown, note) = (format!("{topic}-unknown"), "x".repeat(5_000));
    let names = [
        ("<id>", &id.as_bytes()[..]),
        ("<stranger>", stranger.as_bytes()),
        ("<unknown>", unknown.as_bytes()),
        ("<it>", topic.as_bytes()),
    ];
    for (what, group, member, epoch, topics) in [
        ("plain", topic, "", -1, &[(id, 0, "note")][..]),
        ("no such partition", topic, "", -1, &[(id, 9, "")]),
        ("no such topic", topic, "", -1, &[(stranger, 0, "")]),
        ("no id", topic, "", -1, &[(nil, 0, "")]),
        ("long note", topic, "", -1, &[(id, 1, &note)]),
        ("no group", "", "", -1, &[(id, 0, "")]),
        ("a member of nothing", &unknown, "me", 3, &[(id, 0, "")]),
        ("a stranger", topic, "me", 3, &[(id, 0, "")]),
        ("doubly wrong", &unknown, "me", 3, &[(stranger, 0, "")]),
        (
            "some right",
            topic,
            "",
            -1,
            &[(stranger, 0, ""), (id, 1, "")],
        ),
        (
            "the other way",
            topic,
            "",
            -1,
            &[(id, 1, ""), (stranger, 0, "")],
        ),
    ] {
        let told = ask(wire, COMMIT, commit(group, member, epoch, topics), &names).await?;
        writeln!(said, "{what}: {told}")?;
    }
    let ids = |ids: &'static [usize]| ids.iter().map(|at| [id, stranger, nil][*at]);
    for (what, groups, member, topics) in [
        ("known", &[topic][..], None, Some(&[0][..])),
        ("no such topic", &[topic], None, Some(&[1])),
        ("no id", &[topic], None, Some(&[2])),
        ("some known", &[topic], None, Some(&[1, 0])),
        ("nothing", &[topic], None, Some(&[])),
        ("everything", &[topic], None, None),
        ("nobody's", &[&unknown], None, Some(&[0])),
        ("nobody's everything", &[&unknown], None, None),
        ("two groups", &[topic, &unknown], None, Some(&[0])),
        ("a stranger", &[topic], Some(("me", 3)), Some(&[0])),
    ] {
        let topics: Option<Vec<Uuid>> = topics.map(|at| ids(at).collect());
        let body = fetch(groups, member, topics.as_deref());
        writeln!(said, "{what}: {}", ask(wire, FETCH, body, &names).await?)?;
    }

    // Another topic of the same name has nothing of the first.
    remove(wire, topic).await?;
    let again = fresh(wire, topic, 2).await?;
    let names = [
        ("<old>", &id.as_bytes()[..]),
        ("<new>", again.as_bytes()),
        ("<it>", topic.as_bytes()),
    ];
    let mut everything = String::new();
    for _ in 0..200 {
        // Coordinators forget a moment later.
        tokio::time::sleep(Duration::from_millis(50)).await;
        everything = ask(wire, FETCH, fetch(&[topic], None, None), &names).await?;
        if !everything.contains("note") {
            break;
        }
    }
    writeln!(said, "everything anew: {everything}")?;
    for (what, id) in [("old", id), ("new", again)] {
        let body = fetch(&[topic], None, Some(&[id]));
        writeln!(said, "{what}: {}", ask(wire, FETCH, body, &names).await?)?;
        let body = commit(topic, "", -1, &[(id, 0, "note")]);
        writeln!(said, "{what}: {}", ask(wire, COMMIT, body, &names).await?)?;
        let body = fetch(&[topic], None, Some(&[again]));
        writeln!(said, "new now: {}", ask(wire, FETCH, body, &names).await?)?;
    }
    Ok(said)
}
