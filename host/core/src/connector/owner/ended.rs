//! What a host has given up and is to be told to the catalogue.

use crate::catalogue::{Catalogue, Claim, HeldJob};
use crate::types::Error;

/// Intents, claims, jobs and room that this host has given up.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) keys: Vec<String>,
    pub(super) claims: Vec<Claim>,
    pub(super) jobs: Vec<HeldJob>,
    pub(super) rooms: Vec<u64>,
}

impl Ended {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.claims.is_empty() && self.jobs.is_empty() && self.rooms.is_empty()
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.claims.extend(other.claims);
        self.jobs.extend(other.jobs);
        self.rooms.extend(other.rooms);
    }

    /// Tells the catalogue. Gives back what it could not be told.
    pub(super) async fn tell(mut self, catalogue: &dyn Catalogue) -> Result<(), (Error, Self)> {
        match self.tell_each(catalogue).await {
            Ok(()) => Ok(()),
            Err(error) => Err((error, self)),
        }
    }

    async fn tell_each(&mut self, catalogue: &dyn Catalogue) -> Result<(), Error> {
        if !self.keys.is_empty() {
            catalogue.abandon_intents(self.keys.clone()).await?;
            self.keys.clear();
        }
        if !self.claims.is_empty() {
            catalogue.release_claims(self.claims.clone()).await?;
            self.claims.clear();
        }
        if !self.jobs.is_empty() {
            catalogue.release_jobs(self.jobs.clone()).await?;
            self.jobs.clear();
        }
        if !self.rooms.is_empty() {
            catalogue.release_rooms(self.rooms.clone()).await?;
            self.rooms.clear();
        }
        Ok(())
    }
}
