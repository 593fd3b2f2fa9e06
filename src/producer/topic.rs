//! A producer's view of one topic, which it looks up once.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::producer::shared::TopicEntry;
use crate::producer::{Deliveries, Delivery, Producer, RecordMetadata, not_sent};
use crate::record::Record;

/// Sends records to one topic: like [`Producer`], without a look-up per record. Cheap to clone.
///
/// It takes records without a topic ([`Record::new`]) and those of its own topic; another topic is
/// [`ErrorKind::InvalidArgument`]. Made by [`Producer::topic`]. It keeps the producer alive as a clone of it would.
///
/// ```no_run
/// # async fn example(producer: ottla::Producer) -> ottla::Result<()> {
/// use ottla::Record;
///
/// let orders = producer.topic("orders");
/// for number in 0..1000 {
///     let value = format!("order {number}");
///     drop(orders.send(Record::new().key("customer-7").value(&value)).await?);
/// }
/// producer.flush().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TopicProducer {
    producer: Producer,
    place: Arc<Place>,
}

/// A topic's name, and the topic once it is known.
pub(crate) struct Place {
    pub(crate) name: Arc<str>,
    /// Topics stay where they are for as long as the producer lives, deleted ones too.
    pub(crate) entry: OnceLock<Arc<TopicEntry>>,
}

impl TopicProducer {
    pub(crate) fn new(producer: Producer, name: Arc<str>) -> Self {
        Self {
            producer,
            place: Arc::new(Place {
                name,
                entry: OnceLock::new(),
            }),
        }
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// The producer that this is a view of.
    #[must_use]
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Accepts a record, as [`Producer::send`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there: dropped before it returns, nothing was accepted.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery> {
        let record = self.bind(record)?;
        self.producer.send_to(Some(&self.place), &record).await
    }

    /// Accepts a record if that needs no waiting, as [`Producer::try_send`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    pub fn try_send(&self, record: Record<'_>) -> Result<Delivery> {
        let record = self.bind(record)?;
        self.producer.try_send_to(Some(&self.place), &record)
    }

    /// Accepts many records, as [`Producer::send_all`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there: dropped before it returns, a prefix of the records has been accepted.
    pub async fn send_all<'a, I>(&'a self, records: I) -> Result<Deliveries>
    where
        I: IntoIterator<Item = Record<'a>>,
        I::IntoIter: Send,
    {
        let records = records.into_iter().map(|record| self.bind(record));
        self.producer.send_all_to(Some(&self.place), records).await
    }

    /// Sends a record and waits for its end, as [`Producer::deliver`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there: dropped while it waits, the record may or may not have been accepted; an accepted one is sent.
    pub async fn deliver(&self, record: Record<'_>) -> Result<RecordMetadata> {
        self.send(record).await?.await
    }

    fn bind<'r>(&'r self, mut record: Record<'r>) -> Result<Record<'r>> {
        let name = self.name();
        if !record.topic.is_empty() && record.topic != name {
            return Err(not_sent(Error::new(
                ErrorKind::InvalidArgument,
                format!("a record for topic '{}' given to '{name}'", record.topic),
            )));
        }
        record.topic = name;
        Ok(record)
    }
}

impl fmt::Debug for TopicProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicProducer")
            .field("name", &self.place.name)
            .finish_non_exhaustive()
    }
}
