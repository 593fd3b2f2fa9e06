//! What a call about several topics, groups or partitions answers.

use std::borrow::Borrow;
use std::hash::Hash;

use indexmap::IndexMap;

use crate::error::{Certainty, Error, ErrorKind, Result};

/// A result for each key of a call (topics, groups, partitions), in the order of the call.
///
/// A key that was named twice is there once. Topics and groups are looked up by `&str`.
///
/// ```no_run
/// # async fn example(admin: ottla::admin::Admin) -> ottla::Result<()> {
/// let deleted = admin.delete_topics(["a", "b"]).await?;
/// if let Some(Err(error)) = deleted.get("a") {
///     eprintln!("{error}");
/// }
/// for (topic, error) in deleted.errors() {
///     eprintln!("{topic}: {error}");
/// }
/// deleted.all()?; // or the first error
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "each key has its own result"]
pub struct PerKey<K, V>(IndexMap<K, Option<Result<V>>>);

impl<K: Clone + Eq + Hash, V> PerKey<K, V> {
    pub(crate) fn awaiting(keys: impl IntoIterator<Item = K>) -> Self {
        Self(keys.into_iter().map(|key| (key, None)).collect())
    }

    pub(crate) fn put(&mut self, key: K, result: Result<V>) {
        self.0.insert(key, Some(result));
    }

    /// Gives an error to keys that have no result yet.
    pub(crate) fn fill<'a>(&mut self, keys: impl IntoIterator<Item = &'a K>, error: &Error)
    where
        K: 'a,
    {
        for key in keys {
            if let Some(result @ None) = self.0.get_mut(key) {
                *result = Some(Err(error.clone()));
            }
        }
    }

    /// Says of a key's error, if it has one, that what was asked for may have been done all the
    /// same.
    pub(crate) fn doubt(&mut self, key: &K) {
        if let Some(Some(Err(error))) = self.0.get_mut(key) {
            *error = error.clone().with_certainty(Certainty::MaybeWritten);
        }
    }

    /// Takes back errors that are not the last word.
    pub(crate) fn take_back(&mut self, is_not_the_last: impl Fn(&Error) -> bool) {
        for result in self.0.values_mut() {
            if let Some(Err(error)) = result
                && is_not_the_last(error)
            {
                *result = None;
            }
        }
    }

    /// The keys that have no result yet.
    pub(crate) fn unsettled(&self) -> Vec<K> {
        let unsettled = self.0.iter().filter(|(_, result)| result.is_none());
        unsettled.map(|(key, _)| key.clone()).collect()
    }

    /// The result for one key; `None` if it was not part of the call.
    #[must_use]
    pub fn get<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<&Result<V>>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)?.as_ref()
    }

    /// Takes the result for one key out.
    pub fn remove<Q: ?Sized + Eq + Hash>(&mut self, key: &Q) -> Option<Result<V>>
    where
        K: Borrow<Q>,
    {
        self.0.shift_remove(key)?
    }
}

impl<K, V> PerKey<K, V> {
    /// The result of a call about one key.
    pub(crate) fn only(self) -> Result<V> {
        let mut results = self.into_iter();
        results.next().map_or_else(
            || Err(Error::new(ErrorKind::Protocol, "there is no answer")),
            |(_, result)| result,
        )
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let results = self.0.values_mut();
        results.filter_map(|result| result.as_mut()?.as_mut().ok())
    }

    /// How many keys there are results for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys with their results.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(self.0.iter())
    }

    /// The keys that failed, and why.
    pub fn errors(&self) -> impl Iterator<Item = (&K, &Error)> {
        self.iter()
            .filter_map(|(key, result)| Some((key, result.as_ref().err()?)))
    }

    /// All values, if every key succeeded.
    ///
    /// # Errors
    ///
    /// The first key's error.
    pub fn all(self) -> Result<Vec<V>> {
        self.into_iter().map(|(_, result)| result).collect()
    }
}

impl<'a, K, V> IntoIterator for &'a PerKey<K, V> {
    type Item = (&'a K, &'a Result<V>);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K, V> IntoIterator for PerKey<K, V> {
    type Item = (K, Result<V>);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(self) -> IntoIter<K, V> {
        IntoIter(self.0.into_iter())
    }
}

/// Keys with their results: see [`PerKey::iter`].
#[derive(Debug)]
pub struct Iter<'a, K, V>(indexmap::map::Iter<'a, K, Option<Result<V>>>);

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a Result<V>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .by_ref()
            .find_map(|(key, result)| Some((key, result.as_ref()?)))
    }
}

/// Keys with their results, owned.
#[derive(Debug)]
pub struct IntoIter<K, V>(indexmap::map::IntoIter<K, Option<Result<V>>>);

impl<K, V> Iterator for IntoIter<K, V> {
    type Item = (K, Result<V>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .by_ref()
            .find_map(|(key, result)| Some((key, result?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_call_and_the_first_error() {
        let names = ["b", "a", "c"].map(str::to_owned);
        let mut results: PerKey<String, i32> = PerKey::awaiting(names.clone());
        results.put("a".to_owned(), Ok(1));
        results.put("b".to_owned(), Ok(2));
        let late = Error::new(ErrorKind::Timeout, "late");
        results.fill(names.iter(), &late);
        let order: Vec<&str> = results.iter().map(|(topic, _)| &**topic).collect();
        assert_eq!(order, ["b", "a", "c"]);
        assert_eq!(results.errors().count(), 1);
        assert_eq!(results.get("a").unwrap().as_ref().unwrap(), &1);
        assert!(results.get("d").is_none());
        assert_eq!(results.clone().all().unwrap_err().to_string(), "late");
        assert!(results.remove("c").unwrap().is_err());
        assert_eq!(results.all().unwrap(), [2, 1]);
    }
}
