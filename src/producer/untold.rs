//! Which records failed, and which of these errors no delivery has returned: for `flush` and
//! `close`.
//!
//! Nothing here costs anything as long as nothing fails. A failed batch is kept until its records
//! were told, by their deliveries or by a flush, so that a flush can name the first of them. Of
//! more than [`MOST`] batches only the number of records is kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Certainty, Error, ErrorKind};
use crate::producer::delivery::BatchDone;

/// The failed records of one producer.
#[derive(Default)]
pub(crate) struct Failures(Mutex<List>);

#[derive(Default)]
struct List {
    /// All records that failed so far.
    failed: u64,
    /// In the order of their ends.
    batches: VecDeque<Arc<BatchDone>>,
    /// What is known of batches that are not kept.
    others: Untold,
}

/// Failed records whose errors neither a delivery nor a flush has returned.
#[derive(Default)]
struct Untold {
    records: u64,
    first: Option<Error>,
    maybe_written: bool,
}

const MOST: usize = 1000;

impl Failures {
    /// The batch is about to end with this error. Records that the application dropped do not
    /// count: its call of `purge` said how many they were.
    pub(crate) fn add(&self, batch: &Arc<BatchDone>, records: u32, error: &Error) {
        if error.kind() == ErrorKind::Purged {
            return;
        }
        batch.fails(records);
        let mut list = self.list();
        list.failed += u64::from(records);
        list.batches.push_back(Arc::clone(batch));
        if list.batches.len() > MOST {
            list.shrink();
        }
    }

    /// All records that failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.list().failed
    }

    /// An error for the records that failed and nobody was told of; they count as told from now on.
    pub(crate) fn take(&self) -> Option<Error> {
        let mut list = self.list();
        let mut untold = std::mem::take(&mut list.others);
        list.batches.retain(|batch| !untold.absorb(batch));
        drop(list);
        let Untold {
            records,
            first,
            maybe_written,
        } = untold;
        let error = first.filter(|_| records > 0)?;
        let text = match records {
            1 => "a record sent since the last flush failed".to_owned(),
            _ => format!("{records} records sent since the last flush failed; the first"),
        };
        let error = error.context(text);
        Some(match maybe_written {
            true => error.with_certainty(Certainty::MaybeWritten),
            false => error,
        })
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    /// Lets go of batches whose errors were all returned, and if that is not enough, of the oldest
    /// half.
    fn shrink(&mut self) {
        self.batches.retain(|batch| batch.untold() > 0);
        while self.batches.len() > MOST / 2
            && let Some(batch) = self.batches.front()
            && self.others.absorb(batch)
        {
            self.batches.pop_front();
        }
    }
}

impl Untold {
    /// Takes a batch's records over; false if it has not ended yet.
    fn absorb(&mut self, batch: &BatchDone) -> bool {
        let Some(error) = batch.failure() else {
            return false;
        };
        let records = batch.take_untold();
        if records > 0 {
            self.records += u64::from(records);
            self.maybe_written |= error.certainty() != Some(Certainty::NotSent);
            self.first.get_or_insert_with(|| error.clone());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::delivery::{Deliveries, Outcome};
    use crate::types::TopicPartition;
    use futures::FutureExt;

    fn fail(failures: &Failures, partition: i32, records: u32, end: Certainty) -> Arc<BatchDone> {
        let batch = BatchDone::new(TopicPartition::new("t", partition));
        let error = Error::from_code(29, "producing")
            .with_certainty(end)
            .with_topic_partition(batch.partition().clone());
        failures.add(&batch, records, &error);
        batch.complete(Outcome::Failed(error));
        batch
    }

    #[test]
    fn what_deliveries_told_is_not_told_again() {
        let failures = Failures::default();
        let batch = fail(&failures, 0, 3, Certainty::NotSent);
        let mut delivery = batch.delivery(1, 0);
        // Twice is once.
        for _ in 0..2 {
            assert!((&mut delivery).now_or_never().unwrap().is_err());
        }
        drop(batch.delivery(2, 0));
        fail(&failures, 1, 1, Certainty::MaybeWritten);
        let error = failures.take().unwrap();
        assert_eq!(error.topic_partition(), Some(batch.partition()));
        assert_eq!(error.code().map(crate::BrokerCode::get), Some(29));
        assert_eq!(error.certainty(), Some(Certainty::MaybeWritten));
        let text = error.to_string();
        assert!(
            text.contains("3 records") && text.contains("TOPIC_AUTHORIZATION"),
            "{text}"
        );
        assert!(failures.take().is_none());
        // Told after the flush: nothing is taken off what fails later.
        assert!(batch.delivery(0, 0).now_or_never().unwrap().is_err());
        fail(&failures, 0, 1, Certainty::NotSent);
        assert_eq!(
            failures.take().unwrap().certainty(),
            Some(Certainty::NotSent)
        );
    }

    #[test]
    fn many_deliveries_tell_of_all_their_records() {
        let failures = Failures::default();
        let batches = [0, 1].map(|partition| fail(&failures, partition, 2, Certainty::NotSent));
        let mut all = Deliveries::of(&[(&batches[0], 2), (&batches[1], 1)]);
        assert!((&mut all).now_or_never().unwrap().is_err());
        let error = failures.take().unwrap();
        assert!(error.to_string().contains("a record"), "{error}");
        assert_eq!(error.topic_partition(), Some(batches[1].partition()));
    }

    #[test]
    fn a_batch_that_is_about_to_fail_is_told_by_the_next_flush() {
        let failures = Failures::default();
        let batch = BatchDone::new(TopicPartition::new("t", 0));
        let error = Error::new(ErrorKind::Timeout, "late").with_certainty(Certainty::NotSent);
        failures.add(&batch, 1, &error);
        assert!(failures.take().is_none());
        batch.complete(Outcome::Failed(error));
        assert!(failures.take().is_some());
    }

    #[test]
    fn few_batches_are_kept_and_no_record_is_forgotten() {
        let failures = Failures::default();
        let batches: Vec<_> = (0..5 * MOST as i32)
            .map(|partition| fail(&failures, partition, 2, Certainty::NotSent))
            .collect();
        let kept = failures.list().batches.len();
        assert!(kept <= MOST, "{kept}");
        let error = failures.take().unwrap();
        assert!(error.to_string().contains("10000 records"), "{error}");
        assert_eq!(error.topic_partition(), Some(batches[0].partition()));
        // Those that were told make room.
        for partition in 0..5 * MOST as i32 {
            let batch = fail(&failures, partition, 1, Certainty::NotSent);
            assert!(batch.delivery(0, 0).now_or_never().unwrap().is_err());
        }
        assert!(failures.list().batches.len() <= MOST);
        assert!(failures.take().is_none());
    }
}
