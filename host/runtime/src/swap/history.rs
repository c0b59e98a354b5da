//! The history of a backend's adapter, and its consequences.
//!
//! The history is a list of rows that is only ever added to. Which generation serves, and which one a rollback puts
//! back, are not stored beside it: they follow from the rows ([`History::of`]), so that they cannot contradict them. A
//! row is one durable write; a crash leaves the history before it or after it.

use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

use super::Stage;
use crate::Adapter;

/// How many earlier generations stay loadable.
pub const KEPT: usize = 4;

/// How many rows are kept of one backend. Older ones are forgotten.
pub const ROWS: usize = 500;

/// The event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The configuration named this component.
    Configured,
    /// Swapped in.
    Swap,
    /// Rolled back on request.
    Rollback,
    /// The one before came back because this one's successor failed more.
    AutomaticRollback,
    /// It did not pass a stage; nothing changed.
    Refused,
}

impl Event {
    /// The name in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Swap => "swap",
            Self::Rollback => "rollback",
            Self::AutomaticRollback => "automatic-rollback",
            Self::Refused => "refused",
        }
    }

    /// The event of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Configured, Self::Swap, Self::Rollback, Self::AutomaticRollback, Self::Refused];
        all.into_iter().find(|event| event.name() == name)
    }
}

/// One row. Digests are texts, `sha256:` and 64 digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HistoryRow {
    /// The event.
    pub event: Event,
    /// The current generation from here on, counting up from 1; none for a rejected component.
    pub generation: Option<u64>,
    /// The component.
    pub digest: String,
    /// The adapter's name; empty if it was rejected before `describe`.
    pub adapter: String,
    /// The adapter's version.
    pub version: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// The origin: `configuration`, `library`, `command line`, `http`, a directory, `tidelock`.
    pub by: String,
    /// The component that served before.
    pub from: Option<String>,
    /// The stage that refused it.
    pub stage: Option<Stage>,
    /// The reason of a rejection or an automatic rollback.
    pub why: Option<String>,
    /// The component that the configuration named at that time.
    #[serde(skip)]
    pub configured: String,
}

impl HistoryRow {
    /// A row for a component at a time, without the fields that only some rows have. The adapter is missing if it never loaded.
    pub(super) fn new(
        event: Event,
        digest: String,
        adapter: Option<&Adapter>,
        since: u64,
        by: String,
        configured: String,
    ) -> Self {
        let description = adapter.map(Adapter::description);
        Self {
            event,
            generation: None,
            digest,
            adapter: description.map(|it| it.name.clone()).unwrap_or_default(),
            version: description.map(|it| it.version.clone()).unwrap_or_default(),
            since,
            by,
            from: None,
            stage: None,
            why: None,
            configured,
        }
    }
}

/// A row and the current state of its generation.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HistoryEntry {
    /// The row.
    #[serde(flatten)]
    pub row: HistoryRow,
    /// `serving`; `draining` while operations end on it; `kept` if a rollback can put it back; `refused`; `past`.
    pub state: &'static str,
}

/// The rows of one backend and their consequences.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Oldest first.
    rows: VecDeque<HistoryRow>,
    /// The targets of rollbacks, the next one first: the rows that began them.
    earlier: VecDeque<HistoryRow>,
}

impl History {
    /// From rows, oldest first.
    pub fn of(rows: impl IntoIterator<Item = HistoryRow>) -> Self {
        let mut history = Self::default();
        rows.into_iter().for_each(|row| history.add(row));
        history
    }

    /// Adds the latest event.
    pub fn add(&mut self, row: HistoryRow) {
        if row.generation.is_some()
            && let Some(leaving) = self.serving().cloned()
        {
            match row.event {
                Event::Rollback | Event::AutomaticRollback => {
                    // The generation that a rollback leaves goes last, so that a second one does not return to it. One
                    // that was rolled back automatically does not return at all.
                    self.earlier.pop_front();
                    self.earlier.truncate(KEPT - 1);
                    if row.event == Event::Rollback {
                        self.earlier.push_back(leaving);
                    }
                }
                _ => self.earlier.push_front(leaving),
            }
            self.earlier.truncate(KEPT);
        }
        self.rows.push_back(row);
        while self.rows.len() > ROWS {
            // The row of the current generation stays, however many rejections follow it.
            let serving = self.rows.iter().rposition(|row| row.generation.is_some());
            self.rows.remove(usize::from(serving == Some(0)));
        }
    }

    /// Returns the row that began the current generation.
    pub fn serving(&self) -> Option<&HistoryRow> {
        self.rows.iter().rev().find(|row| row.generation.is_some())
    }

    /// Returns the target of a rollback.
    pub fn before(&self) -> Option<&HistoryRow> {
        self.earlier.front()
    }

    /// Returns the digests that must stay loadable: the current one and all rollback targets.
    pub fn needed(&self) -> impl Iterator<Item = &str> {
        self.serving().into_iter().chain(&self.earlier).map(|row| row.digest.as_str())
    }

    /// Returns the generation to serve when a host starts with the component `configured`: the last one,
    /// unless the configuration has changed since. Then the configuration is the newer decision.
    pub fn resume(&self, configured: &str) -> Option<&HistoryRow> {
        self.serving().filter(|row| row.configured == configured)
    }

    /// Why a component should not be put in again unasked: it was refused, or put aside by a rollback, and has not
    /// served since.
    pub fn put_aside(&self, digest: &str) -> Option<&HistoryRow> {
        let last = self.rows.iter().rev().find(|row| row.digest == digest || row.from.as_deref() == Some(digest))?;
        match last.event {
            Event::Refused if last.digest == digest => Some(last),
            Event::Rollback | Event::AutomaticRollback if last.digest != digest => Some(last),
            _ => None,
        }
    }

    /// All rows with their states, newest first.
    pub fn entries(&self, draining: &[u64]) -> Vec<HistoryEntry> {
        let serving = self.serving().and_then(|row| row.generation);
        let state = |row: &HistoryRow| match row.generation {
            None => "refused",
            now if now == serving => "serving",
            Some(number) if draining.contains(&number) => "draining",
            number if self.earlier.iter().any(|kept| kept.generation == number) => "kept",
            Some(_) => "past",
        };
        self.rows.iter().rev().map(|row| HistoryEntry { row: row.clone(), state: state(row) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Simulates a slot: `None` is a rollback.
    fn play(history: &mut History, next: &mut u64, step: (Event, u8)) {
        let (event, name) = step;
        let digest = match event {
            Event::Rollback | Event::AutomaticRollback => match history.before() {
                Some(row) => row.digest.clone(),
                None => return,
            },
            _ => format!("sha256:{name}"),
        };
        let generation = (event != Event::Refused).then(|| {
            *next += 1;
            *next
        });
        let from = history.serving().map(|row| row.digest.clone());
        history.add(HistoryRow {
            event,
            generation,
            digest,
            adapter: String::new(),
            version: String::new(),
            since: 0,
            by: "test".into(),
            from,
            stage: None,
            why: None,
            configured: "sha256:0".into(),
        });
    }

    fn steps() -> impl Strategy<Value = Vec<(Event, u8)>> {
        let events = prop::sample::select(vec![
            Event::Swap,
            Event::Swap,
            Event::Configured,
            Event::Rollback,
            Event::AutomaticRollback,
            Event::Refused,
        ]);
        prop::collection::vec((events, 0u8..6), 0..60)
    }

    fn played(steps: &[(Event, u8)]) -> History {
        let (mut history, mut next) = (History::default(), 0);
        steps.iter().for_each(|step| play(&mut history, &mut next, *step));
        history
    }

    #[test]
    fn a_second_rollback_goes_on_back() {
        let digest = |history: &History| history.serving().unwrap().digest.clone();
        let mut steps = vec![(Event::Configured, 1), (Event::Swap, 2), (Event::Swap, 3), (Event::Rollback, 0)];
        assert_eq!(digest(&played(&steps)), "sha256:2");
        steps.push((Event::Rollback, 0));
        assert_eq!(digest(&played(&steps)), "sha256:1");
    }

    #[test]
    fn a_put_aside_component_is_remembered_until_it_serves_again() {
        let aside = |steps: &[(Event, u8)]| played(steps).put_aside("sha256:2").map(|row| row.event);
        let mut steps = vec![(Event::Configured, 1), (Event::Swap, 2)];
        assert_eq!(aside(&steps), None);
        steps.push((Event::AutomaticRollback, 0));
        assert_eq!(aside(&steps), Some(Event::AutomaticRollback));
        steps.push((Event::Refused, 2));
        assert_eq!(aside(&steps), Some(Event::Refused));
        steps.push((Event::Swap, 2));
        assert_eq!(aside(&steps), None);
        assert_eq!(aside(&[(Event::Configured, 2), (Event::Swap, 3)]), None, "a successor is no verdict");
    }

    #[test]
    fn a_changed_configuration_wins() {
        let history = played(&[(Event::Configured, 0), (Event::Swap, 2)]);
        assert_eq!(history.resume("sha256:0").map(|row| row.digest.as_str()), Some("sha256:2"));
        assert!(history.resume("sha256:9").is_none());
    }

    proptest! {
        /// The consequences of rows do not depend on when they were read.
        #[test]
        fn reading_it_again_gives_the_same(steps in steps()) {
            let history = played(&steps);
            let again = History::of(history.rows.iter().cloned());
            prop_assert_eq!(&again.rows, &history.rows);
            prop_assert_eq!(&again.earlier, &history.earlier);
        }

        #[test]
        fn an_automatically_rolled_back_component_is_no_rollback_target(steps in steps(), rollbacks in 1usize..10) {
            let mut history = played(&steps);
            let (mut next, bad) = (1000, (Event::Swap, 99));
            play(&mut history, &mut next, bad);
            play(&mut history, &mut next, (Event::AutomaticRollback, 0));
            prop_assume!(history.serving().unwrap().digest != "sha256:99");
            for _ in 0..rollbacks {
                play(&mut history, &mut next, (Event::Rollback, 0));
                prop_assert_ne!(&history.serving().unwrap().digest, "sha256:99");
            }
        }

        #[test]
        fn little_is_kept_and_numbers_rise(steps in steps()) {
            let history = played(&steps);
            prop_assert!(history.earlier.len() <= KEPT);
            let numbers: Vec<u64> = history.rows.iter().filter_map(|row| row.generation).collect();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            let states = history.entries(&[]);
            prop_assert_eq!(states.iter().filter(|entry| entry.state == "serving").count(), usize::from(!numbers.is_empty()));
        }
    }

    #[test]
    fn rows_are_bounded_and_the_one_that_serves_stays() {
        let mut steps = vec![(Event::Configured, 1)];
        steps.extend(vec![(Event::Refused, 2); 2 * ROWS]);
        let history = played(&steps);
        assert_eq!(history.rows.len(), ROWS);
        assert_eq!(history.serving().unwrap().digest, "sha256:1");
    }
}
