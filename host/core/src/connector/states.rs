//! Which backends can be used: asked now, or as they were last seen.
//!
//! A look opens the adapter and reads the identity of the container; where none is recorded yet, the backend is asked for a listing,
//! or for its health. It writes nothing. What was last seen is the last look, and how the operations since then have ended.

use futures::future::join_all;

use super::container::PATIENCE;
use super::{ConfiguredBackend, Host};
use crate::config::Route;
use crate::types::{Error, Result};

/// Operations that have to fail in a row for a backend to count as one that cannot be used.
const FAILURES: u32 = 2;

impl Host {
    /// Looks whether a backend can be used now, with the container that its objects were stored into. Takes at most some seconds.
    ///
    /// # Errors
    /// `not-found` for an unknown name; why it cannot be used.
    pub async fn look_at_backend(&self, backend: &str) -> Result<()> {
        let configured = self.configured(backend)?;
        let look = async {
            self.open_backend(backend).await?;
            match self.inner.catalogue.container(backend).await? {
                Some(_) => self.confirm_container(backend).await,
                None => self.answers(backend).await,
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| {
            let what = format!("it did not answer within {} s", PATIENCE.as_secs());
            Err(Error::timed_out(what).on_backend(backend))
        });
        configured.set_seen(outcome.is_ok());
        outcome
    }

    /// The same of all backends at once, by their names.
    pub async fn look_at_backends(&self) -> Vec<(&str, Result<()>)> {
        join_all(self.backends().map(async |name| (name, self.look_at_backend(name).await))).await
    }

    /// Returns whether a backend is open and could be used when it was last seen. Asks nobody.
    pub fn is_usable(&self, name: &str) -> bool {
        let usable = |backend: &ConfiguredBackend| {
            backend.was_usable() && backend.get().is_some_and(|open| open.metrics().failures_in_a_row() < FAILURES)
        };
        self.inner.backends.get(name).is_some_and(usable)
    }

    /// The routes on which fewer backends can be used than `wanted` says for their number of copies.
    fn routes_below(&self, usable: impl Fn(&str) -> bool, wanted: impl Fn(usize) -> usize) -> Vec<(&str, &[String])> {
        let below = |route: &Route| {
            let count = route.backends.iter().filter(|name| usable(name)).count();
            count < wanted(route.copies as usize)
        };
        self.inner
            .routes
            .iter()
            .filter(|(_, route)| below(route))
            .map(|(name, route)| (name.as_str(), route.backends.as_slice()))
            .collect()
    }

    /// Returns the routes that do not have a backend for each of their copies, of those that are given as usable; and the backends of each.
    pub fn routes_short_of(&self, usable: &[&str]) -> Vec<(&str, &[String])> {
        self.routes_below(|name| usable.contains(&name), |copies| copies)
    }

    /// Returns the routes of which no backend could be used when they were last seen. Asks nobody.
    pub fn routes_without_backend(&self) -> Vec<&str> {
        self.routes_below(|name| self.is_usable(name), |_| 1).into_iter().map(|(route, _)| route).collect()
    }

    /// Returns the backends on which there are objects of a store although this process has begun the catalogue: it knows none
    /// of them. Empty if the catalogue was there. A backend that does not answer within seconds counts as empty.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub async fn held_before(&self) -> Result<Vec<String>> {
        if !self.inner.begun {
            return Ok(Vec::new());
        }
        let look = async |name: String| {
            let found = tokio::time::timeout(PATIENCE, self.holds_something(&name)).await;
            let held = matches!(found, Ok(Ok(true)));
            if let Ok(Err(error)) = found {
                tracing::debug!(backend = name, %error, "cannot find out whether there are objects");
            }
            held.then_some(name)
        };
        let found: Vec<String> =
            join_all(self.configured_names().into_iter().map(look)).await.into_iter().flatten().collect();
        for backend in &found {
            if self.can_have_packs(backend).await? {
                self.inner.catalogue.begin_look(backend, false).await?;
            }
        }
        Ok(found)
    }
}
