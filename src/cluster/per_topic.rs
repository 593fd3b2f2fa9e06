//! What a call about several topics answers.

use indexmap::IndexMap;

use crate::error::{Error, Result};

/// A result for each topic of a call, in the order of the call.
///
/// A topic that was named twice is there once.
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
#[must_use = "each topic has its own result"]
pub struct PerTopic<T>(IndexMap<String, Option<Result<T>>>);

impl<T> PerTopic<T> {
    pub(crate) fn awaiting<'a>(names: impl Iterator<Item = &'a String>) -> Self {
        Self(names.map(|name| (name.clone(), None)).collect())
    }

    pub(crate) fn put(&mut self, name: String, result: Result<T>) {
        self.0.insert(name, Some(result));
    }

    /// Gives an error to topics that have no result yet.
    pub(crate) fn fill<'a>(&mut self, names: impl Iterator<Item = &'a String>, error: &Error) {
        for name in names {
            if let Some(result @ None) = self.0.get_mut(name) {
                *result = Some(Err(error.clone()));
            }
        }
    }

    pub(crate) fn is_settled(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Some(_)))
    }

    /// The result for one topic; `None` if it was not part of the call.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&Result<T>> {
        self.0.get(topic)?.as_ref()
    }

    /// Takes the result for one topic out.
    pub fn remove(&mut self, topic: &str) -> Option<Result<T>> {
        self.0.shift_remove(topic)?
    }

    /// How many topics there are results for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no topic.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Topics with their results.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self.0.iter())
    }

    /// The topics that failed, and why.
    pub fn errors(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.iter()
            .filter_map(|(topic, result)| Some((topic, result.as_ref().err()?)))
    }

    /// All values, if every topic succeeded.
    ///
    /// # Errors
    ///
    /// The first topic's error.
    pub fn all(self) -> Result<Vec<T>> {
        self.into_iter().map(|(_, result)| result).collect()
    }
}

impl<'a, T> IntoIterator for &'a PerTopic<T> {
    type Item = (&'a str, &'a Result<T>);
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> IntoIterator for PerTopic<T> {
    type Item = (String, Result<T>);
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self.0.into_iter())
    }
}

/// Topics with their results: see [`PerTopic::iter`].
#[derive(Debug)]
pub struct Iter<'a, T>(indexmap::map::Iter<'a, String, Option<Result<T>>>);

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = (&'a str, &'a Result<T>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .by_ref()
            .find_map(|(topic, result)| Some((topic.as_str(), result.as_ref()?)))
    }
}

/// Topics with their results, owned.
#[derive(Debug)]
pub struct IntoIter<T>(indexmap::map::IntoIter<String, Option<Result<T>>>);

impl<T> Iterator for IntoIter<T> {
    type Item = (String, Result<T>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .by_ref()
            .find_map(|(topic, result)| Some((topic, result?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn results_keep_the_order_of_the_call_and_the_first_error() {
        let names = ["b", "a", "c"].map(str::to_owned);
        let mut results: PerTopic<i32> = PerTopic::awaiting(names.iter());
        results.put("a".to_owned(), Ok(1));
        results.put("b".to_owned(), Ok(2));
        let late = Error::new(ErrorKind::Timeout, "late");
        results.fill(names.iter(), &late);
        let order: Vec<&str> = results.iter().map(|(topic, _)| topic).collect();
        assert_eq!(order, ["b", "a", "c"]);
        assert_eq!(results.errors().count(), 1);
        assert_eq!(results.get("a").unwrap().as_ref().unwrap(), &1);
        assert!(results.get("d").is_none());
        assert_eq!(results.clone().all().unwrap_err().to_string(), "late");
        assert!(results.remove("c").unwrap().is_err());
        assert_eq!(results.all().unwrap(), [2, 1]);
    }
}
