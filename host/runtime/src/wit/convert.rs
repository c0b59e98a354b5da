//! Between the words of the host and those of `tidelock:storage@0.1.x`, both ways, nothing else.
//!
//! Values from a guest are checked here: names for length and control characters, texts truncated to [`TEXT`], lists to
//! [`LIST`]. An invalid value is the guest's error (`other`), never a panic and never the host's.

use std::time::Duration;

use super::bindings::exports::tidelock::storage::{account as wit_account, inventory as wit_inventory};
use super::bindings::tidelock::storage::types as wit;
use tidelock_types::{
    AccountState, ArchiveState, ByteRange, Description, Error, ErrorKind, Features, Health, InventoryEntry,
    InventoryPage, ObjectId, ObjectStat, PaymentDue, Receipt, Result, SettingKind, SettingSpec, SettingValue,
    StoreHint,
};

/// Maximum length in bytes of a text for people; longer ones are truncated.
const TEXT: usize = 2048;

/// Maximum number of entries of a list of labels or settings.
const LIST: usize = 256;

/// The most bytes of the cursor of a listing. An adapter whose backend gives its list only whole keeps what comes next in it:
/// 20,000 entries, for `ipfs` and `ton`.
const CURSOR: usize = 2 << 20;

/// A text for people from a guest: truncated, and without the control characters that could forge a log line or drive a
/// terminal.
pub(crate) fn text(from: String) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if from.len() <= TEXT {
        return from.chars().map(clean).collect();
    }
    let mut charge: String = from.chars().take(TEXT / 4).map(clean).collect();
    charge.push('…');
    charge
}

fn reason(from: String, otherwise: &str) -> String {
    let charge = text(from);
    if charge.trim().is_empty() { otherwise.to_owned() } else { charge }
}

pub(crate) fn error_in(error: wit::Error) -> Error {
    match error {
        wit::Error::RateLimited(limit) => {
            // A day is more than any backend means, and keeps a guest from parking an operation for ever.
            let after = limit.retry_after_ms.map(|ms| Duration::from_millis(ms.min(86_400_000)));
            Error::new(ErrorKind::RateLimited(after), reason(limit.reason, "too many requests"))
        }
        wit::Error::InsufficientBalance(due) => {
            let payment = PaymentDue {
                amount: due.amount.map(text).filter(|amount| is_amount(amount)),
                unit: due.unit.map(text),
                account: due.account.map(text),
            };
            Error::new(ErrorKind::InsufficientBalance(payment), reason(due.reason, "the backend must be paid first"))
        }
        wit::Error::NotFound(why) => Error::not_found(reason(why, "no such object")),
        wit::Error::Denied(why) => Error::denied(reason(why, "forbidden by the backend")),
        wit::Error::Invalid(why) => Error::invalid(reason(why, "rejected by the backend")),
        wit::Error::Conflict(why) => Error::conflict(reason(why, "the object exists already or has changed")),
        wit::Error::Unavailable(why) => Error::unavailable(reason(why, "the backend cannot serve now")),
        wit::Error::Archived(state) => {
            Error::new(ErrorKind::Archived(archive_in(state)), "the object is in cold storage")
                .hint("restore it first, or wait for the restore in progress")
        }
        wit::Error::Corrupt(why) => Error::corrupt(reason(why, "the backend returned other bytes than were stored")),
        wit::Error::Unsupported(why) => Error::unsupported(reason(why, "not supported by the adapter")),
        wit::Error::Other(why) => Error::other(reason(why, "the adapter gave no reason")),
    }
}

pub(crate) fn error_out(error: &Error) -> wit::Error {
    // The backend's name is the operator's; a guest learns the reason alone.
    let why = error.message().to_owned();
    match error.kind() {
        ErrorKind::RateLimited(after) => wit::Error::RateLimited(wit::RateLimit {
            retry_after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            reason: why,
        }),
        ErrorKind::InsufficientBalance(due) => wit::Error::InsufficientBalance(wit::PaymentDue {
            amount: due.amount.clone(),
            unit: due.unit.clone(),
            account: due.account.clone(),
            reason: why,
        }),
        ErrorKind::NotFound => wit::Error::NotFound(why),
        ErrorKind::Denied => wit::Error::Denied(why),
        ErrorKind::Invalid => wit::Error::Invalid(why),
        ErrorKind::Conflict => wit::Error::Conflict(why),
        ErrorKind::Archived(state) => wit::Error::Archived(archive_out(state)),
        ErrorKind::Corrupt => wit::Error::Corrupt(why),
        ErrorKind::Unsupported => wit::Error::Unsupported(why),
        ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Cancelled => wit::Error::Unavailable(why),
        ErrorKind::Trapped | ErrorKind::Limit | ErrorKind::Other => wit::Error::Other(why),
    }
}

pub(crate) fn archive_in(state: wit::ArchiveState) -> ArchiveState {
    match state {
        wit::ArchiveState::Archived => ArchiveState::Archived,
        // A year is more than any archive means, and can be added to any time.
        wit::ArchiveState::Restoring(left) => {
            ArchiveState::Restoring(left.map(|seconds| Duration::from_secs(seconds.min(366 * 86_400))))
        }
        wit::ArchiveState::Readable(until) => ArchiveState::Readable(until),
    }
}

pub(crate) fn archive_out(state: &ArchiveState) -> wit::ArchiveState {
    match state {
        ArchiveState::Archived => wit::ArchiveState::Archived,
        ArchiveState::Restoring(left) => wit::ArchiveState::Restoring(left.map(|left| left.as_secs())),
        ArchiveState::Readable(until) => wit::ArchiveState::Readable(*until),
    }
}

pub(crate) fn range_in(range: wit::ByteRange) -> ByteRange {
    ByteRange { start: range.start, end: range.end }
}

/// The maximum size of a file (POSIX's `off_t`). Some languages cannot read larger numbers, and no object needs
/// them.
const LARGEST_SIZE: u64 = i64::MAX.unsigned_abs();

pub(crate) fn range_out(range: ByteRange) -> wit::ByteRange {
    let ByteRange { start, end } = range;
    wit::ByteRange { start: start.min(LARGEST_SIZE), end: end.filter(|end| *end <= LARGEST_SIZE) }
}

pub(crate) fn hint_out(hint: StoreHint) -> wit::StoreHint {
    wit::StoreHint { key: hint.key, size: hint.size, labels: hint.labels }
}

fn object_in(name: String) -> Result<ObjectId> {
    ObjectId::new(name)
        .map_err(|error| Error::other(format!("the adapter returned an invalid id: {}", error.message())))
}

pub(crate) fn receipt_in(receipt: wit::Receipt) -> Result<Receipt> {
    Ok(Receipt { id: object_in(receipt.id)?, size: receipt.size })
}

fn labels_in(labels: Vec<(String, String)>) -> Vec<(String, String)> {
    labels.into_iter().take(LIST).map(|(name, value)| (text(name), text(value))).collect()
}

pub(crate) fn stat_in(stat: wit::ObjectStat) -> Result<ObjectStat> {
    Ok(ObjectStat {
        size: stat.size,
        base: stat.base.map(object_in).transpose()?,
        archive: stat.archive.map(archive_in),
        modified: stat.modified,
        labels: labels_in(stat.labels),
    })
}

pub(crate) fn health_in(health: wit::Health) -> Health {
    Health { ready: health.ready, detail: text(health.detail) }
}

pub(crate) fn description_in(description: wit::Description) -> Description {
    let features = description.features;
    Description {
        name: text(description.name),
        version: text(description.version),
        summary: text(description.summary),
        features: Features {
            ranges: features.contains(wit::Features::RANGES),
            lineage: features.contains(wit::Features::LINEAGE),
            unsized_input: features.contains(wit::Features::UNSIZED_INPUT),
            labels: features.contains(wit::Features::LABELS),
        },
        settings: description
            .settings
            .into_iter()
            .take(LIST)
            .map(|spec| SettingSpec {
                name: text(spec.name),
                kind: match spec.kind {
                    wit::SettingKind::Text => SettingKind::Text,
                    wit::SettingKind::Integer => SettingKind::Integer,
                    wit::SettingKind::Boolean => SettingKind::Boolean,
                },
                required: spec.required,
                summary: text(spec.summary),
            })
            .collect(),
    }
}

pub(crate) fn setting_out(value: &SettingValue) -> wit::SettingValue {
    match value {
        SettingValue::Text(text) => wit::SettingValue::Text(text.clone()),
        SettingValue::Integer(number) => wit::SettingValue::Integer(*number),
        SettingValue::Boolean(flag) => wit::SettingValue::Boolean(*flag),
    }
}

/// Returns whether a text is a whole number of the smallest unit, as the interface has amounts.
fn is_amount(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn balance_in(amount: String) -> Result<String> {
    let amount = text(amount);
    if is_amount(&amount) {
        Ok(amount)
    } else {
        Err(Error::other("the adapter returned a balance that is not an integer"))
    }
}

pub(crate) fn account_in(state: wit_account::AccountState) -> Result<AccountState> {
    Ok(AccountState {
        wallet: state.wallet.map(balance_in).transpose()?,
        contract: state.contract.map(balance_in).transpose()?,
        unit: text(state.unit),
        runway_seconds: state.runway_seconds,
    })
}

pub(crate) fn inventory_in(page: wit_inventory::Page, limit: u32) -> Result<InventoryPage> {
    if page.entries.len() > limit as usize {
        return Err(Error::other(format!(
            "the adapter listed {} objects, but {limit} were requested",
            page.entries.len()
        )));
    }
    let entries = page
        .entries
        .into_iter()
        .map(|entry| Ok(InventoryEntry { id: object_in(entry.id)?, size: entry.size, modified: entry.modified }))
        .collect::<Result<_>>()?;
    // It is returned to the adapter unchanged, so it cannot be truncated.
    match page.next.as_ref().map(String::len) {
        Some(bytes) if bytes > CURSOR => {
            Err(Error::other(format!("the adapter returned a cursor of {bytes} bytes, more than {CURSOR}")))
        }
        _ => Ok(InventoryPage { entries, next: page.next }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_text_cannot_forge_lines_or_flood() {
        assert_eq!(text("a\nb\x1b[2Jc".into()), "a b [2Jc");
        assert!(text("é".repeat(1 << 20)).len() <= TEXT);
        assert_eq!(error_in(wit::Error::NotFound("\n".into())).message(), "no such object");
    }

    #[test]
    fn an_amount_is_digits_or_nothing() {
        let due = |amount: &str| {
            let due = wit::PaymentDue { amount: Some(amount.into()), unit: None, account: None, reason: "x".into() };
            match error_in(wit::Error::InsufficientBalance(due)).kind() {
                ErrorKind::InsufficientBalance(due) => due.amount.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(due("15"), Some("15".into()));
        assert_eq!(due("-15"), None);
        assert_eq!(due("1e9"), None);
    }

    #[test]
    fn a_balance_is_a_number_and_a_cursor_has_an_end() {
        let account = |wallet: &str| {
            let (wallet, unit) = (Some(wallet.to_owned()), "nanoton".to_owned());
            account_in(wit_account::AccountState { wallet, contract: None, unit, runway_seconds: None })
        };
        assert_eq!(account("15").unwrap().wallet.as_deref(), Some("15"));
        assert!(account("-15").is_err() && account("").is_err());
        let page = |bytes: usize| wit_inventory::Page { entries: Vec::new(), next: Some("x".repeat(bytes)) };
        assert!(inventory_in(page(CURSOR), 1).is_ok());
        assert!(inventory_in(page(CURSOR + 1), 1).is_err());
    }

    #[test]
    fn an_estimate_can_be_added_to_the_time() {
        let ArchiveState::Restoring(Some(left)) = archive_in(wit::ArchiveState::Restoring(Some(u64::MAX))) else {
            panic!("it is another state")
        };
        assert!(std::time::Instant::now().checked_add(left).is_some());
    }

    #[test]
    fn kinds_survive_the_border() {
        for kind in [
            ErrorKind::RateLimited(Some(Duration::from_secs(3))),
            ErrorKind::NotFound,
            ErrorKind::Denied,
            ErrorKind::Invalid,
            ErrorKind::Conflict,
            ErrorKind::Unavailable,
            ErrorKind::Archived(ArchiveState::Restoring(Some(Duration::from_secs(9)))),
            ErrorKind::Corrupt,
            ErrorKind::Unsupported,
            ErrorKind::Other,
        ] {
            assert_eq!(*error_in(error_out(&Error::new(kind.clone(), "why"))).kind(), kind);
        }
    }
}
