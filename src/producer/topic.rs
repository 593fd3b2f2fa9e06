//! A producer's view of one topic, which it looks up once.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::producer::topics::CachedTopic;
use crate::producer::{Deliveries, Delivery, Producer, RecordMetadata, not_sent};
use crate::record::Record;

/// Sends records to one topic: like [`Producer`], without a look-up per record. Cheap to clone.
///
/// It takes records without a topic ([`Record::new`]) and those of its own topic; another topic is
/// [`ErrorKind::InvalidArgument`]. Made by [`Producer::topic`]. It keeps the producer alive as a
/// clone of it would, and once it was used, its topic in the producer's metadata, however long
/// nothing is sent to it ([`metadata_max_idle`](crate::ProducerBuilder::metadata_max_idle)).
///
/// ```no_run
/// # async fn example(producer: ottla::Producer) -> ottla::Result<()> {
/// use ottla::Record;
///
/// let orders = producer.topic("orders");
/// for number in 0..1000 {
///     let value = format!("order {number}");
///     orders.enqueue(Record::new().with_key("customer-7").with_value(&value)).await?;
/// }
/// producer.flush().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TopicProducer {
    producer: Producer,
    place: Arc<CachedTopic>,
}

impl Producer {
    /// This producer for one topic: sends to it without looking it up per record.
    ///
    /// Nothing is asked of the cluster before the first `send`.
    #[must_use]
    pub fn topic(&self, name: impl Into<Arc<str>>) -> TopicProducer {
        TopicProducer::new(self.clone(), name.into())
    }
}

impl TopicProducer {
    pub(crate) fn new(producer: Producer, name: Arc<str>) -> Self {
        Self {
            producer,
            place: Arc::new(CachedTopic {
                name,
                held: OnceLock::new(),
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

    /// Sends a record and waits until it is acknowledged, as [`Producer::send`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there: dropped while it waits, the record may or may not have been accepted; an accepted
    /// one is sent.
    pub async fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        self.enqueue(record).await?.await
    }

    /// Accepts a record, as [`Producer::enqueue`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there: dropped before it returns, nothing was accepted.
    pub async fn enqueue<'a>(&'a self, mut record: Record<'a>) -> Result<Delivery> {
        self.bind(&mut record)?;
        let (producer, place) = (&self.producer, Some(&*self.place));
        if let Some(chain) = &producer.shared().interceptors {
            let mut wall = None;
            let sent = producer.enqueue_intercepted(chain, place, &record, &mut wall);
            return Box::pin(sent).await.map_err(not_sent);
        }
        // As `Producer::enqueue`: one future within another costs as much as the look-up that is
        // saved.
        match producer
            .shared()
            .accept(place, &record, &mut None, &mut None)
        {
            Ok(delivery) => Ok(delivery),
            Err(obstacle) => {
                producer
                    .enqueue_slowly(place, &record, &mut None, obstacle)
                    .await
            }
        }
        .map_err(not_sent)
    }

    /// Accepts a record if that needs no waiting, as [`Producer::try_enqueue`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    pub fn try_enqueue<'a>(&'a self, mut record: Record<'a>) -> Result<Delivery> {
        self.bind(&mut record)?;
        self.producer.try_enqueue_to(Some(&self.place), &record)
    }

    /// Accepts many records, as [`Producer::enqueue_all`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::InvalidArgument`] for a record of another topic.
    ///
    /// # Cancel safety
    ///
    /// As there: dropped before it returns, a prefix of the records has been accepted.
    pub async fn enqueue_all<'a, I>(&'a self, records: I) -> Result<Deliveries>
    where
        I: IntoIterator<Item = Record<'a>>,
        I::IntoIter: Send,
    {
        let records = records.into_iter().map(|mut record| {
            self.bind(&mut record)?;
            Ok(record)
        });
        self.producer
            .enqueue_all_to(Some(&self.place), records)
            .await
    }

    #[inline]
    fn bind<'a>(&'a self, record: &mut Record<'a>) -> Result<()> {
        let name = self.name();
        if !record.topic.is_empty() && record.topic != name {
            return Err(not_sent(Error::new(
                ErrorKind::InvalidArgument,
                format!("a record for topic '{}' given to '{name}'", record.topic),
            )));
        }
        record.topic = name;
        Ok(())
    }
}

impl fmt::Debug for TopicProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicProducer")
            .field("name", &self.place.name)
            .finish_non_exhaustive()
    }
}
