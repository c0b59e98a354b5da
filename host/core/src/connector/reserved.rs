//! Room that this host has reserved in the catalogue, so that bounds hold for all processes together.

use super::Host;
use crate::catalogue::{Reserved, RiskBound, RiskRoute};
use crate::config::{Ack, HOT, Route};
use crate::types::Result;

/// Room that was reserved. Dropping it gives it back, within the time in which the lease is renewed.
pub(super) struct Room {
    host: Host,
    number: Option<u64>,
}

impl Room {
    /// Room that nothing was reserved for.
    pub(super) fn none(host: &Host) -> Self {
        Self { host: host.clone(), number: None }
    }

    /// Gives it back now.
    pub(super) async fn end(mut self) {
        let Some(number) = self.number.take() else { return };
        if let Err(error) = self.host.inner.catalogue.release_rooms(vec![number]).await {
            tracing::debug!(%error, "room that was reserved is given back later");
            self.host.inner.owner.release_room(number);
        }
    }

    /// Its number, in the order in which room is reserved.
    pub(super) fn number(&self) -> Option<u64> {
        self.number
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            self.host.inner.owner.release_room(number);
        }
    }
}

impl Host {
    /// What may be on this machine alone.
    pub(super) fn risk_bound(&self, most: u64) -> RiskBound {
        let of = |route: &Route| {
            let backends: Vec<String> = route.backends.iter().filter(|name| *name != HOT).cloned().collect();
            RiskRoute { backends, copies: route.copies.max(1) as usize, local: route.ack == Ack::Local }
        };
        let routes = self.inner.routes.iter().map(|(name, route)| (name.clone(), of(route)));
        RiskBound { most, routes: routes.collect() }
    }

    /// Reserves room for bytes of a route that are to be on this machine alone; without any, says how many are in the way.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(super) async fn reserve_risk(
        &self,
        bound: &RiskBound,
        route: &str,
        bytes: u64,
    ) -> Result<std::result::Result<Room, u64>> {
        let owner = &self.inner.owner;
        let token = owner.current().await?;
        let reserve = || self.inner.catalogue.reserve_risk(token, bound.clone(), route.to_owned(), bytes);
        let mut reserved = reserve().await?;
        if let Reserved::Full(_) = reserved {
            // Hosts that have ended without a word need none of it, nor does what this one has given up.
            owner.end_dead().await?;
            reserved = reserve().await?;
        }
        Ok(match reserved {
            Reserved::Room(number) => Ok(Room { host: self.clone(), number: Some(number) }),
            Reserved::Full(bytes) => Err(bytes),
        })
    }

    /// Reserves room of the hot tier.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(super) async fn reserve_hot(&self, bytes: u64) -> Result<Room> {
        let owner = &self.inner.owner;
        owner.end_dead().await?;
        let number = self.inner.catalogue.reserve_hot(owner.current().await?, bytes).await?;
        Ok(Room { host: self.clone(), number: Some(number) })
    }
}
