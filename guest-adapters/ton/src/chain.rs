//! The balances of wallet and storage contract, from toncenter's API (version 2, as JSON-RPC).
//!
//! A storage contract holds the payments of its client. After each proof that it has the bag, the provider takes the price
//! of its storage, for at most `max_span` seconds at once. The adapter calls
//! `get_storage_contract_data`, whose eleven values are, in order: active, balance, provider, hash of the microchunks, bytes,
//! next byte to be proved, rate per MiB and day, max_span, time of the last proof, client, bag id. That is the contract of TON's
//! own storage daemon. Of another contract only the balance is known, not how long it lasts.
//!
//! The adapter pays nothing. If a contract is short of money it fails with `insufficient-balance`, with the missing amount
//! and the account; the host's treasury pays. A wallet is identified by its address alone.
//!
//! The API's own key is a credential of the grant: the host adds it, and this adapter never sees it.

use serde::Deserialize;
use serde_json::{Value, json};
use tidelock_sdk::error::{printable, retry_after_ms};
use tidelock_sdk::http::{Http, Request};
use tidelock_sdk::{AccountState, Error, PaymentDue, clock, log};

use crate::options::Settings;
use crate::terms::Terms;

/// `grants.http.rpc` in the configuration.
const RPC: Http = Http::granted("rpc");

/// The unit of every amount.
pub const UNIT: &str = "nanoton";

/// The most bytes of a reply, which includes the code and data of an account.
const MAX_ANSWER: usize = 1 << 20;

/// Returns the balances of wallet and contract.
pub async fn balances(settings: &Settings) -> Result<AccountState, Error> {
    let Settings { wallet_address, contract_address, .. } = settings;
    let rpc = match (&settings.rpc_endpoint, wallet_address.is_some() || contract_address.is_some()) {
        (Some(url), true) => Rpc(url),
        _ => {
            return Err(Error::unsupported(
                "balances need the setting `rpc_endpoint`, and `wallet_address` or `contract_address`",
            ));
        }
    };
    let wallet = match wallet_address {
        Some(address) => Some(rpc.balance(address).await?),
        None => None,
    };
    let (contract, runway_seconds) = match contract_address {
        None => (None, None),
        Some(address) => match rpc.terms(address).await? {
            Some(terms) => (Some(terms.balance.to_string()), terms.runway_seconds(clock::now() / 1000)),
            None => (Some(rpc.balance(address).await?), None),
        },
    };
    Ok(AccountState { wallet, contract, unit: UNIT.into(), runway_seconds })
}

/// Fails with `insufficient-balance` if the contract cannot pay for its next span. If the chain cannot be queried, this
/// succeeds, with a warning in the log.
pub async fn funds(settings: &Settings) -> Result<(), Error> {
    let (Some(url), Some(address)) = (&settings.rpc_endpoint, &settings.contract_address) else { return Ok(()) };
    match Rpc(url).terms(address).await {
        Ok(Some(terms)) => match terms.due() {
            Some(amount) => Err(Error::InsufficientBalance(PaymentDue {
                amount: Some(amount.to_string()),
                unit: Some(UNIT.into()),
                account: Some(address.clone()),
                reason: "the storage contract's balance does not pay for its next span".into(),
            })),
            None => Ok(()),
        },
        Ok(None) => Ok(()),
        Err(error @ Error::InsufficientBalance(_)) => Err(error),
        Err(error) => {
            log::warn(&["storing without knowing the balance of the contract: ", &reason(&error)].concat());
            Ok(())
        }
    }
}

/// Returns the reason of an error, for the log.
fn reason(error: &Error) -> String {
    match error {
        Error::RateLimited(limit) => limit.reason.clone(),
        Error::NotFound(why) | Error::Denied(why) | Error::Invalid(why) | Error::Conflict(why) => why.clone(),
        Error::Unavailable(why) | Error::Corrupt(why) | Error::Unsupported(why) | Error::Other(why) => why.clone(),
        Error::InsufficientBalance(due) => due.reason.clone(),
        Error::Archived(_) => String::new(),
    }
}

/// toncenter's API at a URL.
struct Rpc<'a>(&'a str);

/// A reply of the API. toncenter gives the reason of an error as `error` or as `result`.
#[derive(Debug, Default, Deserialize)]
struct Reply {
    ok: bool,
    result: Option<Value>,
    error: Option<String>,
    code: Option<u16>,
}

impl Rpc<'_> {
    /// Returns the balance of an account, in nanoton: 0 if it does not exist.
    async fn balance(&self, address: &str) -> Result<String, Error> {
        let account = self.call("getAddressInformation", json!({ "address": address })).await?;
        let balance = match account.get("balance") {
            Some(Value::String(text)) => text.parse::<u128>().ok(),
            Some(Value::Number(number)) => number.as_u64().map(u128::from),
            _ => None,
        };
        balance.map(|balance| balance.to_string()).ok_or_else(not_the_api)
    }

    /// Returns the terms of a storage contract; `None` if there is no such contract at the address.
    async fn terms(&self, address: &str) -> Result<Option<Terms>, Error> {
        let params = json!({ "address": address, "method": "get_storage_contract_data", "stack": [] });
        let run = self.call("runGetMethod", params).await?;
        let exit = run.get("exit_code").and_then(Value::as_i64).ok_or_else(not_the_api)?;
        // 0 and 1 are success to the virtual machine.
        if exit != 0 && exit != 1 {
            return Ok(None);
        }
        let stack = run.get("stack").and_then(Value::as_array).ok_or_else(not_the_api)?;
        Terms::from_stack(stack).map(Some).ok_or_else(not_the_api)
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, Error> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request = Request::post(self.0).header("content-type", "application/json").bytes(body.into_bytes());
        let response = RPC.send(request).await?;
        let retry_after = response.header("retry-after").map(|value| retry_after_ms(value, clock::now()));
        let status = response.status;
        let bytes = match status {
            200 => response.body.read_all(MAX_ANSWER).await?,
            _ => response.body.read_at_most(MAX_ANSWER).await,
        };
        result(status, retry_after.flatten(), &bytes)
    }
}

/// Returns the result in a reply. Fails with the error that its code means. The code in the body comes before the HTTP
/// status, since a gateway may answer everything with 200.
fn result(status: u16, retry_after_ms: Option<u64>, bytes: &[u8]) -> Result<Value, Error> {
    let reply = serde_json::from_slice::<Reply>(bytes);
    let (code, reason) = match reply {
        Ok(Reply { ok: true, result: Some(result), .. }) if status == 200 => return Ok(result),
        Ok(Reply { error, result, code, .. }) => {
            let said = error.or_else(|| result.and_then(|value| value.as_str().map(Into::into)));
            (code.unwrap_or(status), printable(said.unwrap_or_default().as_bytes()))
        }
        Err(_) => (status, printable(bytes)),
    };
    Err(match Error::from_http_status(code, retry_after_ms, reason) {
        Error::Denied(why) => {
            Error::Denied(["toncenter: ", &why, " (its key is the credential of the grant `rpc`)"].concat())
        }
        // Neither is about an object: the URL is wrong.
        Error::NotFound(why) => Error::Invalid(["`rpc_endpoint` is not the API of toncenter: ", &why].concat()),
        Error::Other(why) if code == 405 => {
            Error::Invalid(["`rpc_endpoint` is not the API of toncenter: ", &why].concat())
        }
        // A parameter is wrong, and the address is the only one that is configured.
        Error::Other(why) if code == 422 => Error::Invalid(["toncenter: ", &why].concat()),
        Error::Other(why) if code == 200 => Error::Other(["toncenter gave no result: ", &why].concat()),
        other => other,
    })
}

fn not_the_api() -> Error {
    Error::other("the reply of toncenter is not one of its API")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> Error {
        result(status, Some(7), body.as_bytes()).unwrap_err()
    }

    #[test]
    fn codes_map_to_errors() {
        let body = |code| format!(r#"{{"ok":false,"error":"why","code":{code}}}"#);
        let plain = |code| refused(code, &body(code));
        assert!(matches!(plain(429), Error::RateLimited(limit) if limit.retry_after_ms == Some(7)));
        assert!(matches!(plain(401), Error::Denied(why) if why.contains("key")));
        assert!(matches!(plain(404), Error::Invalid(why) if why.contains("rpc_endpoint")));
        assert!(matches!(plain(405), Error::Invalid(_)));
        assert!(matches!(plain(409), Error::Conflict(_)));
        assert!(matches!(plain(422), Error::Invalid(why) if why.contains("why")));
        assert!(matches!(plain(507), Error::InsufficientBalance(_)));
        for code in [500, 504, 542] {
            assert!(matches!(plain(code), Error::Unavailable(why) if why.ends_with("why")), "{code}");
        }
    }

    #[test]
    fn the_code_in_the_body_comes_first() {
        let limited = r#"{"ok":false,"result":"Ratelimit exceed","code":429}"#;
        for status in [200, 429] {
            assert!(
                matches!(refused(status, limited), Error::RateLimited(limit) if limit.reason.ends_with("Ratelimit exceed"))
            );
        }
        assert!(matches!(refused(502, "<html>bad gateway</html>"), Error::Unavailable(why) if why.contains("gateway")));
        assert!(matches!(refused(200, "<html>welcome</html>"), Error::Other(_)));
        assert!(matches!(refused(200, r#"{"ok":true}"#), Error::Other(_)));
        assert!(matches!(refused(500, r#"{"ok":true,"result":1}"#), Error::Unavailable(_)));
        assert_eq!(result(200, None, br#"{"ok":true,"result":{"a":1},"id":1}"#).unwrap(), json!({ "a": 1 }));
    }
}
