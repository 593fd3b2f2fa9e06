//! The results of Java's assignors and the bytes of its members, compared with ours.
//!
//! Cases come from seeds, so that only Java's answers are kept: `tests/assignors/expected.txt` has
//! a line per case, with a hash for each assignor and one for the bytes. `-` stands for a result of
//! Java's that is none, since a partition goes to nobody, to two members or to one that does not
//! subscribe: there ours has only to be right.
//!
//! `tests/assignors/run` compares fresh cases with Java itself, and `tests/assignors/run fixture`
//! makes the answers anew. Both need Java 17 or later and fetch Kafka's client.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::group::subscription::{encode_assignment, encode_subscription};
use crate::types::TopicPartition;

const EXPECTED: &str = include_str!("../../../tests/assignors/expected.txt");
const KEPT: u64 = 4000;

/// Chance that gives the same numbers for a seed for ever (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }

    fn hit(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn generation(&mut self) -> i32 {
        i32::try_from(self.below(3)).unwrap() + 4
    }
}

struct Case {
    cluster: ClusterView,
    /// Topics that exist, with those of no partitions.
    topics: Vec<(String, usize)>,
    members: Vec<Member>,
}

struct Member {
    id: String,
    subscription: MemberSubscription,
    /// What the sticky assignors tell.
    sticky: Option<Bytes>,
    cooperative: Option<Bytes>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let chance = &mut Chance(seed);
        let large = chance.hit(10);
        let topics = 1 + chance.below(if large { 15 } else { 6 });
        let alike = chance.hit(30).then(|| chance.below(12));
        let topics: Vec<(String, usize)> = (0..topics)
            .map(|number| {
                let most = if chance.hit(15) { 60 } else { 12 };
                let partitions = alike.unwrap_or_else(|| chance.below(most));
                (format!("t{number}-{:x}", chance.below(4096)), partitions)
            })
            .collect();
        let mut cluster = ClusterView::new();
        let racks = if chance.hit(50) {
            1 + chance.below(4)
        } else {
            0
        };
        let same_everywhere = chance.hit(40).then(|| chance.below(1000) as u64);
        for (topic, partitions) in &topics {
            cluster = cluster.with_topic(topic.as_str(), *partitions);
            for number in 0..*partitions {
                let mut own = Chance(chance.below(1 << 30) as u64);
                if let Some(seed) = same_everywhere {
                    own = Chance(seed + number as u64);
                }
                let replicas = own.below(4).min(racks);
                let names = (0..replicas).map(|_| format!("r{}", own.below(racks)));
                cluster = cluster.with_racks(topic, number, names.collect::<Vec<_>>());
            }
        }
        let mut case = Self {
            cluster,
            topics,
            members: Vec::new(),
        };
        case.add_members(chance, large, racks);
        case
    }

    fn add_members(&mut self, chance: &mut Chance, large: bool, racks: usize) {
        let count = 1 + chance.below(if large { 40 } else { 7 });
        let mut names: Vec<&str> = self.topics.iter().map(|(name, _)| &**name).collect();
        if chance.hit(15) {
            names.push("missing");
        }
        let equal = chance.hit(60);
        let named = [0, 0, 50, 100][chance.below(4)];
        let with_racks = [0, 70, 100, 100][chance.below(4)];
        for number in 0..count {
            let mut subscription = MemberSubscription::new(names.iter().copied());
            if !equal {
                let keep = 30 + chance.below(70);
                subscription.topics.retain(|_| chance.hit(keep));
                // With one that subscribes to nothing Java may take all for equal.
                let any = names[chance.below(names.len())];
                subscription.topics.insert(any.into());
            }
            if chance.hit(named) {
                let name = format!("i{}-{number}", chance.below(10));
                subscription.instance_id = Some(name.into());
            }
            if chance.hit(with_racks) {
                let rack = format!("r{}", chance.below(racks + 1));
                subscription.rack = Some(rack.into());
            }
            let id = format!("consumer-{}-{:x}", chance.below(20), chance.below(1 << 30));
            self.members.push(Member {
                id: format!("{id}-{number}"),
                subscription,
                sticky: None,
                cooperative: None,
            });
        }
        self.members.sort_by(|a, b| a.id.cmp(&b.id));
        self.add_history(chance);
    }

    /// What members had: nothing, what a balanced group has, or anything at all.
    fn add_history(&mut self, chance: &mut Chance) {
        let history = chance.below(4);
        if history == 0 {
            return;
        }
        let anything = history == 3;
        let generation = 7;
        let fresh = [0, 10, 40][chance.below(3)];
        let fresh: Vec<bool> = self.members.iter().map(|_| chance.hit(fresh)).collect();
        let missing = [0, 0, 20][chance.below(3)];
        let stray = [0, 0, 5][chance.below(3)];
        let mut turn = 0;
        for (topic, partitions) in &self.topics {
            for number in 0..*partitions {
                if chance.hit(missing) {
                    continue;
                }
                let claims = 1 + usize::from(anything && chance.hit(10));
                for _ in 0..claims {
                    turn += 1;
                    let place = if anything { chance.below(9) } else { turn };
                    let place = place % self.members.len();
                    let subscription = &mut self.members[place].subscription;
                    let subscribes = subscription.topics.contains(&**topic);
                    if fresh[place] || !subscribes && !chance.hit(stray) {
                        continue;
                    }
                    let tp = TopicPartition::new(topic.as_str(), i32::try_from(number).unwrap());
                    subscription.owned_partitions.push(tp);
                }
            }
        }
        let told = [100, 100, 70, 0][chance.below(4)];
        for (member, fresh) in self.members.iter_mut().zip(fresh) {
            if fresh {
                continue;
            }
            let own = if anything && chance.hit(30) {
                chance.generation()
            } else {
                generation
            };
            let damaged = chance.hit(3);
            member.tell(own, told, chance, damaged);
        }
    }

    fn group(&self, of: impl Fn(&Member) -> MemberSubscription) -> GroupSubscription {
        let members = self.members.iter();
        members
            .map(|member| (member.id.as_str(), of(member)))
            .collect()
    }

    /// As the program reads it.
    fn text(&self) -> String {
        let mut text = String::new();
        for (topic, partitions) in &self.topics {
            let views = self.cluster.partitions(topic).iter();
            let racks = views.map(|view| list(view.racks().map(str::to_owned)));
            let racks: Vec<_> = racks.collect();
            writeln!(text, "T {topic} {partitions} {};", racks.join(";")).unwrap();
        }
        for member in &self.members {
            let subscription = &member.subscription;
            let optional = |text: Option<&Arc<str>>| text.map_or("-", |text| text).to_owned();
            let generation = subscription.generation.map(|g| Arc::from(g.to_string()));
            let owned = subscription.owned_partitions.iter();
            let fields = [
                member.id.clone(),
                optional(subscription.instance_id.as_ref()),
                optional(subscription.rack.as_ref()),
                optional(generation.as_ref()),
                list(subscription.topics.iter().map(|topic| topic.to_string())),
                list(owned.map(|tp| format!("{}:{}", tp.topic(), tp.partition()))),
                hex_or_none(member.sticky.as_ref()),
                hex_or_none(member.cooperative.as_ref()),
            ];
            writeln!(text, "M {}", fields.join(" ")).unwrap();
        }
        text + "E\n"
    }

    /// What the program answers, said by our assignors.
    fn answers(&self) -> [String; 5] {
        let eager = |member: &Member| {
            let mut subscription = member.subscription.clone();
            subscription.owned_partitions.clear();
            subscription.user_data.clone_from(&member.sticky);
            subscription
        };
        let cooperative = |member: &Member| {
            let mut subscription = member.subscription.clone();
            subscription.user_data.clone_from(&member.cooperative);
            subscription
        };
        let eager = self.group(eager);
        [
            self.assigned(&RangeAssignor, &eager),
            self.assigned(&RoundRobinAssignor, &eager),
            self.assigned(&StickyAssignor, &eager),
            self.assigned(&CooperativeStickyAssignor, &self.group(cooperative)),
            self.members.iter().map(Member::bytes).collect(),
        ]
    }

    fn assigned(&self, assignor: &dyn Assignor, group: &GroupSubscription) -> String {
        let assignment = assignor.assign(&self.cluster, group);
        let checked = assignment.check(assignor.name(), &self.cluster, group);
        checked.unwrap();
        let subscribed = group.topics();
        let topics = self.cluster.topics();
        let topics = topics.filter(|(topic, _)| subscribed.contains(*topic));
        let wanted: usize = topics.map(|(_, partitions)| partitions.len()).sum();
        let given: usize = assignment.members().map(|(_, m)| m.partitions.len()).sum();
        let is_cooperative = assignor.rebalance_protocol() == RebalanceProtocol::Cooperative;
        assert!(given == wanted || is_cooperative && given < wanted);
        let mut text = String::new();
        for (id, member) in assignment.members() {
            assert!(member.partitions.is_sorted());
            let mut topics: indexmap::IndexMap<&str, Vec<i32>> = indexmap::IndexMap::new();
            for tp in &member.partitions {
                topics.entry(tp.topic()).or_default().push(tp.partition());
            }
            let topics = topics.iter();
            let topics: Vec<_> = topics.map(|(t, all)| format!("{t}={all:?}")).collect();
            write!(text, "{id}={{{}}} ", topics.join(", ")).unwrap();
        }
        text
    }
}

impl Member {
    /// Notes what the member tells of the generation in which it got what it owns, in what it may
    /// be told in.
    fn tell(&mut self, generation: i32, told: usize, chance: &mut Chance, damaged: bool) {
        let topics = self.topics();
        let had = MemberAssignment::new(self.subscription.owned_partitions.iter().cloned());
        let view = MemberView::new(&topics).with_assignment(&had, generation);
        let mut sticky = StickyAssignor.subscription_user_data(&view).unwrap();
        let mut cooperative = CooperativeStickyAssignor.subscription_user_data(&view);
        if chance.hit(told) {
            self.subscription.generation = Some(generation);
        } else if chance.hit(30) {
            sticky.truncate(sticky.len() - 4); // version 0
            cooperative = None;
        }
        if damaged {
            sticky.truncate(sticky.len() / 2);
            cooperative = cooperative.map(|mut bytes| bytes.split_to(2));
        }
        self.sticky = Some(sticky);
        self.cooperative = cooperative;
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.subscription.topics.iter().cloned().collect()
    }

    fn bytes(&self) -> String {
        let mut subscription = self.subscription.clone();
        subscription.user_data.clone_from(&self.sticky);
        let mut assignment = MemberAssignment::new(subscription.owned_partitions.iter().cloned());
        assignment.user_data.clone_from(&self.cooperative);
        let topics = self.topics();
        let mut view = MemberView::new(&topics);
        if let Some(generation) = subscription.generation {
            view = view.with_assignment(&assignment, generation);
        }
        let bytes = [
            Some(encode_subscription(&subscription)),
            Some(encode_assignment(&assignment)),
            StickyAssignor.subscription_user_data(&view),
            CooperativeStickyAssignor.subscription_user_data(&view),
        ];
        let bytes = bytes.iter();
        bytes.fold(String::new(), |text, bytes| {
            text + &hex_or_none(bytes.as_ref()) + " "
        })
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() {
        "+".to_owned()
    } else {
        items.join(",")
    }
}

fn hex_or_none(bytes: Option<&Bytes>) -> String {
    let Some(bytes) = bytes else {
        return "-".to_owned();
    };
    if bytes.is_empty() {
        return "+".to_owned();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// FNV-1a.
fn hash_of(text: &str) -> u32 {
    let bytes = text.bytes();
    bytes.fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

const INVALID: &str = "invalid";
const WHO: [&str; 5] = [
    "range",
    "roundrobin",
    "sticky",
    "cooperative-sticky",
    "bytes",
];

#[test]
fn results_and_bytes_are_those_of_java() {
    let mut compared = [0; 5];
    let mut seed = 0;
    for (line, expected) in (0..KEPT).zip(EXPECTED.lines()) {
        seed = line + 1;
        let case = Case::new(seed);
        let answers = case.answers();
        for (place, expected) in expected.split(' ').enumerate() {
            if expected != "-" {
                let ours = format!("{:08x}", hash_of(&answers[place]));
                let who = WHO[place];
                let text = case.text();
                assert_eq!(
                    ours, expected,
                    "{who}, seed {seed}\n{text}{}",
                    answers[place]
                );
                compared[place] += 1;
            }
        }
    }
    assert_eq!(seed, KEPT, "expected.txt is short");
    assert!(
        compared.iter().all(|count| *count > KEPT * 99 / 100),
        "{compared:?}"
    );
}

/// Java's answers to cases.
fn ask_java(seeds: std::ops::Range<u64>) -> Vec<[String; 5]> {
    let classpath = std::env::var("OTTLA_KAFKA_CLASSPATH").expect("set by tests/assignors/run");
    let mut java = Command::new("java")
        .args(["-cp", &classpath, "tests/assignors/Assignments.java"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = java.stdin.take().unwrap();
    let asked = seeds.clone();
    let writer = std::thread::spawn(move || {
        for seed in asked {
            stdin.write_all(Case::new(seed).text().as_bytes()).unwrap();
        }
    });
    let mut lines = BufReader::new(java.stdout.take().unwrap()).lines();
    let answers = seeds.map(|seed| {
        [0; 5].map(|_| {
            let line = lines.next().unwrap_or_else(|| panic!("none for {seed}"));
            line.unwrap()
        })
    });
    let answers = answers.collect();
    writer.join().unwrap();
    assert!(java.wait().unwrap().success());
    answers
}

#[test]
#[ignore = "needs Java: tests/assignors/run"]
fn compare_with_java() {
    let seeds = std::env::var("OTTLA_ASSIGNOR_SEEDS").expect("set by tests/assignors/run");
    let (from, to) = seeds.split_once("..").unwrap();
    let seeds = from.parse().unwrap()..to.parse().unwrap();
    let mut different = [0; 5];
    let mut invalid = [0; 5];
    for (seed, theirs) in seeds.clone().zip(ask_java(seeds)) {
        let case = Case::new(seed);
        let ours = case.answers();
        for place in 0..5 {
            if theirs[place] == INVALID {
                invalid[place] += 1;
            } else if theirs[place] != ours[place] {
                different[place] += 1;
                if different[place] <= 3 {
                    let (java, own) = (&theirs[place], &ours[place]);
                    println!("{}, seed {seed}\n{}java: {java}", WHO[place], case.text());
                    println!("ours: {own}\n");
                }
            }
        }
    }
    println!("of {WHO:?} are no results of Java's: {invalid:?}, different: {different:?}");
    assert_eq!(different, [0; 5]);
}

#[test]
#[ignore = "needs Java: tests/assignors/run"]
fn make_the_fixture() {
    let lines = ask_java(1..KEPT + 1).into_iter().map(|answers| {
        let hashes = answers.map(|answer| match answer.as_str() {
            INVALID => "-".to_owned(),
            answer => format!("{:08x}", hash_of(answer)),
        });
        hashes.join(" ") + "\n"
    });
    std::fs::write("tests/assignors/expected.txt", lines.collect::<String>()).unwrap();
}
