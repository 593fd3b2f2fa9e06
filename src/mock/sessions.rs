//! The fetch sessions of one broker (KIP-227): a machine.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use kafka_protocol::messages::FetchRequest;
use uuid::Uuid;

use crate::wire::codes;

/// With this epoch a request is outside of any session, or ends the one it names.
const FINAL: i32 = -1;
/// With this epoch a request asks for a session.
const INITIAL: i32 = 0;
/// `max.incremental.fetch.session.cache.slots`; beyond it the oldest is given up.
const MOST: usize = 1000;

/// A partition as the request names it: by name up to version 12, by id from 13 on (KIP-516).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) id: Uuid,
    pub(super) partition: i32,
}

/// What is to be read of a partition, and what the client was told last.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    /// Of the record before; -1 if the client does not know it.
    pub(super) last_epoch: i32,
    pub(super) max_bytes: usize,
    pub(super) told: Option<(i64, i64)>,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    next: i32,
    open: BTreeMap<i32, Session>,
}

#[derive(Debug, Default)]
struct Session {
    epoch: i32,
    partitions: IndexMap<Place, Wanted>,
}

/// What a request comes to: the session it belongs to (0 for none) and all partitions to look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) session: i32,
    /// Only what changed is to be answered.
    pub(super) incremental: bool,
    pub(super) partitions: IndexMap<Place, Wanted>,
}

impl Sessions {
    /// Takes in a request, or refuses it as a whole.
    pub(super) fn ask(&mut self, request: &FetchRequest) -> Result<Asked, i16> {
        let named = partitions_of(request);
        match request.session_epoch {
            FINAL | INITIAL => {
                self.open.remove(&request.session_id);
                if request.session_epoch == FINAL || named.is_empty() {
                    return Ok(Asked {
                        partitions: named,
                        ..Asked::default()
                    });
                }
                let session = self.create(named.clone());
                Ok(Asked {
                    session,
                    incremental: false,
                    partitions: named,
                })
            }
            epoch => self.go_on(request, epoch, named),
        }
    }

    fn create(&mut self, partitions: IndexMap<Place, Wanted>) -> i32 {
        if self.open.len() >= MOST {
            self.open.pop_first();
        }
        self.next = self.next.checked_add(1).unwrap_or(1);
        let session = Session {
            epoch: 1,
            partitions,
        };
        self.open.insert(self.next, session);
        self.next
    }

    fn go_on(
        &mut self,
        request: &FetchRequest,
        epoch: i32,
        named: IndexMap<Place, Wanted>,
    ) -> Result<Asked, i16> {
        let session = self
            .open
            .get_mut(&request.session_id)
            .ok_or(codes::FETCH_SESSION_ID_NOT_FOUND)?;
        if epoch != session.epoch {
            return Err(codes::INVALID_FETCH_SESSION_EPOCH);
        }
        session.epoch = epoch.checked_add(1).unwrap_or(1);
        for forgotten in &request.forgotten_topics_data {
            for partition in &forgotten.partitions {
                session.partitions.shift_remove(&Place {
                    topic: forgotten.topic.to_string(),
                    id: forgotten.topic_id,
                    partition: *partition,
                });
            }
        }
        for (place, mut wanted) in named {
            wanted.told = session.partitions.get(&place).and_then(|known| known.told);
            session.partitions.insert(place, wanted);
        }
        Ok(Asked {
            session: request.session_id,
            incremental: true,
            partitions: session.partitions.clone(),
        })
    }

    /// The client is told watermark and log start; partitions with data go to the end of the line,
    /// so that a large one does not starve the others.
    pub(super) fn told(&mut self, session: i32, place: &Place, told: (i64, i64), data: bool) {
        let Some(session) = self.open.get_mut(&session) else {
            return;
        };
        if let Some(wanted) = session.partitions.get_mut(place) {
            wanted.told = Some(told);
        }
        if data && let Some((place, wanted)) = session.partitions.shift_remove_entry(place) {
            session.partitions.insert(place, wanted);
        }
    }
}

fn partitions_of(request: &FetchRequest) -> IndexMap<Place, Wanted> {
    let mut named = IndexMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let place = Place {
                topic: topic.topic.to_string(),
                id: topic.topic_id,
                partition: partition.partition,
            };
            let wanted = Wanted {
                offset: partition.fetch_offset,
                leader_epoch: partition.current_leader_epoch,
                last_epoch: partition.last_fetched_epoch,
                max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                told: None,
            };
            named.insert(place, wanted);
        }
    }
    named
}
