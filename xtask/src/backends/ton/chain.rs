//! The chain: toncenter's HTTP API, version 2, over TON's own virtual machine (`xtask/ton/chain`).
//!
//! Two wallets are deployed at its start, a v4r2 and a v5r1, and a storage contract. It keeps everything in memory: one
//! after a restart, earlier payments are gone, and the same wallets have the same addresses.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::PATIENCE;
use crate::backends::daemon::{Daemon, free_ports};
use crate::backends::http::send;
use crate::backends::node::{self, Installed};
use crate::backends::state::Record;
use crate::{say, skip};

/// Its name on the command line and in the state file.
pub const NAME: &str = "ton-chain";
/// The version of the npm package `@ton/sandbox`, which holds the virtual machine.
pub const VERSION: &str = "0.41.0";
/// The header `x-api-key`. Without it, one request a second is allowed.
pub const API_KEY: &str = "tidelock-test";

const FILES: [(&str, &str); 6] = [
    ("package.json", include_str!("../../../ton/chain/package.json")),
    ("package-lock.json", include_str!("../../../ton/chain/package-lock.json")),
    ("chain.mjs", include_str!("../../../ton/chain/chain.mjs")),
    ("ledger.mjs", include_str!("../../../ton/chain/ledger.mjs")),
    ("toncenter.mjs", include_str!("../../../ton/chain/toncenter.mjs")),
    ("storage.tolk", include_str!("../../../ton/chain/storage.tolk")),
];

/// The accounts that are deployed at the start, by address.
#[derive(Debug, Clone, Deserialize)]
pub struct Accounts {
    /// The seed of the key of both wallets, in hexadecimal.
    pub seed: String,
    /// A wallet of version 4, revision 2.
    pub v4r2: String,
    /// A wallet of version 5, revision 1.
    pub v5r1: String,
    /// A storage contract: 1 TON, for 1 GiB at 1,000 nanoton a MiB and day, with a span of a day.
    pub storage: String,
}

/// The terms of a storage contract. Amounts are in nanoton.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The amount that the client has paid in.
    pub balance: u64,
    /// The bytes that are stored.
    pub file_size: u64,
    /// The price of a MiB a day.
    pub rate: u64,
    /// The longest time, in seconds, that a provider is paid for at once.
    pub max_span: u32,
    /// When a provider last proved that it has the bytes, in seconds since 1970.
    pub last_proof_time: u32,
}

/// A chain of one's own. Dropped, it is killed.
#[derive(Debug)]
pub struct TonChain {
    /// The API, as in `http://127.0.0.1:12345/api/v2`.
    pub endpoint: String,
    /// The port of that.
    pub port: u16,
    /// The deployed accounts.
    pub accounts: Accounts,
    daemon: Daemon,
}

/// Why it cannot run here, if it cannot.
pub fn why_not() -> Option<String> {
    node::why_not().map(|why| format!("the TON chain is a Node program, and {why}"))
}

impl TonChain {
    /// Installs it if needed, starts it on a free port and waits until wallets and contract are deployed.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidelock-ton-chain-").tempdir().context("no temporary folder")?;
        Self::start_on_a_free_port(&dir.keep(), true)
    }

    /// The same with its log in `dir`, which stays.
    pub fn start_in(dir: &Path) -> Result<Self> {
        Self::start_on_a_free_port(dir, false)
    }

    fn start_on_a_free_port(dir: &Path, temporary: bool) -> Result<Self> {
        let installed = install()?;
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match Self::try_start(&installed, dir, temporary) {
                Err(error) if attempts > 0 => say!("trying another port: {error:#}"),
                result => return result,
            }
        }
    }

    fn try_start(installed: &Installed, dir: &Path, temporary: bool) -> Result<Self> {
        let port = free_ports(1)?.first().copied().context("no port is free")?;
        let program = installed.dir.join("chain.mjs").display().to_string();
        let arguments = vec![program, port.to_string(), API_KEY.into()];
        let mut daemon = Daemon::new(NAME, &installed.node, arguments, dir, temporary)?;
        daemon.start(PATIENCE, || accounts(port).is_ok())?;
        let accounts = accounts(port)?;
        skip::server("@ton/sandbox", VERSION);
        Ok(Self { endpoint: format!("http://127.0.0.1:{port}/api/v2"), port, accounts, daemon })
    }

    /// Kills it with SIGKILL, and everything that happened on it is gone.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Pays so many nanoton into an account.
    pub fn fund(&self, address: &str, nanoton: u64) -> Result<()> {
        let body = serde_json::json!({ "address": address, "nanoton": nanoton.to_string() });
        send(self.port, "POST", "/dev/fund", &[], &body.to_string()).map(drop)
    }

    /// Deploys a storage contract of its own; its address.
    pub fn deploy_storage(&self, terms: &Terms) -> Result<String> {
        #[derive(Deserialize)]
        struct Deployed {
            address: String,
        }
        let Terms { balance, file_size, rate, max_span, last_proof_time } = terms;
        let body = serde_json::json!({
            "balance": balance.to_string(),
            "file_size": file_size.to_string(),
            "rate": rate.to_string(),
            "max_span": max_span,
            "last_proof_time": last_proof_time,
        });
        let said = send(self.port, "POST", "/dev/storage", &[], &body.to_string())?;
        Ok(serde_json::from_str::<Deployed>(&said)?.address)
    }

    /// Asks its API with the key: a method with its parameters, both as JSON-RPC has them. The answer as it is.
    pub fn ask(&self, method: &str, params: &serde_json::Value) -> Result<serde_json::Value> {
        let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let key = format!("X-API-Key: {API_KEY}");
        Ok(serde_json::from_str(&send(self.port, "POST", "/api/v2/jsonRPC", &[&key], &body.to_string())?)?)
    }

    /// Leaves it running after this process; its folder must be one that was given.
    pub(in crate::backends) fn detach(self) -> Result<Record> {
        let Accounts { seed: _, v4r2, v5r1, storage } = self.accounts;
        let settings = [
            ("rpc_endpoint", self.endpoint),
            ("x-api-key", API_KEY.into()),
            ("wallet_v4r2", v4r2),
            ("wallet_v5r1", v5r1),
            ("contract_address", storage),
        ];
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Record::of(VERSION, self.daemon, settings)
    }
}

fn accounts(port: u16) -> Result<Accounts> {
    Ok(serde_json::from_str(&send(port, "GET", "/dev/accounts", &[], "")?)?)
}

/// Its packages, installed into the cache if they are not there.
pub fn install() -> Result<Installed> {
    node::install("ton-chain", &format!("@ton/sandbox {VERSION}"), &FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wallets_and_contract_are_deployed_and_paid() -> Result<()> {
        if let Some(why) = why_not() {
            skip::skip("wallets_and_contract_are_deployed_and_paid", &why);
            return Ok(());
        }
        let mut chain = TonChain::start()?;
        let Accounts { v4r2, v5r1, storage, .. } = chain.accounts.clone();
        let ask = |method: &str, address: &str| chain.ask(method, &serde_json::json!({ "address": address }));
        for wallet in [&v4r2, &v5r1] {
            let before = ask("getWalletInformation", wallet)?["result"].clone();
            assert_eq!((before["wallet"].as_bool(), before["seqno"].as_u64()), (Some(true), Some(1)), "{before}");
            chain.fund(wallet, 7)?;
            let balance = ask("getAddressBalance", wallet)?["result"].as_str().unwrap_or_default().parse::<u64>()?;
            let was: u64 = before["balance"].as_str().unwrap_or_default().parse()?;
            assert!(balance > was - 1_000_000 && balance <= was + 7, "{was} + 7 - fees = {balance}");
            // As toncenter gives them: digests in base64, of the message as it came.
            let last = ask("getTransactions", wallet)?["result"][0].clone();
            let hash = last["in_msg"]["hash"].as_str().unwrap_or_default();
            assert!(hash.len() == 44 && hash.ends_with('='), "{last}");
            let information = ask("getAddressInformation", wallet)?["result"].clone();
            assert_eq!(information["last_transaction_id"]["hash"], last["transaction_id"]["hash"]);
        }
        let call = serde_json::json!({ "address": storage, "method": "get_storage_contract_data", "stack": [] });
        let stack = chain.ask("runGetMethod", &call)?["result"]["stack"].clone();
        let shown: Vec<_> = [0, 1, 4, 6, 7].iter().map(|&at| stack[at][1].as_str().unwrap_or_default()).collect();
        assert_eq!(shown, ["-0x1", "0x3b9aca00", "0x40000000", "0x3e8", "0x15180"]);
        let refused = send(chain.port, "GET", "/api/v2/getMasterchainInfo", &["X-API-Key: another"], "").unwrap_err();
        assert!(refused.to_string().contains("401"), "{refused}");
        send(chain.port, "GET", "/api/v2/getMasterchainInfo", &[], "")?;
        let refused = send(chain.port, "GET", "/api/v2/getMasterchainInfo", &[], "");
        assert!(refused.is_ok() || refused.unwrap_err().to_string().contains("Ratelimit exceed"));
        chain.kill();
        assert!(accounts(chain.port).is_err());
        Ok(())
    }
}
