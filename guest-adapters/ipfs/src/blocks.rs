//! Sources of blocks: a CAR that has most of them in order, and single requests for those that it lacks.
//!
//! The RPC gives a whole file as one CAR (`dag/export`), a gateway any part of one (`entity-bytes`). A CAR has each block
//! once, and a file may need the same block in many places (an image repeats its zeros). So up to [`MAX_KEPT`] blocks that
//! are needed again are kept; all others that the CAR lacks are requested by CID. Every block is checked against the CID
//! that was requested. For a part of a file, the RPC is asked for each block.

use std::collections::VecDeque;
use std::ops::Range;

use tidelock_sdk::http::{Http, Request};
use tidelock_sdk::{Body, Error};

use crate::car::Car;
use crate::cid::Cid;
use crate::errors::{Service, success};
use crate::options::Settings;
use crate::rpc::{Lookup, Rpc, read_block};
use crate::sha256;

/// `grants.http.gateway` in the configuration.
const GATEWAY: Http = Http::granted("gateway");

/// The most blocks that are kept for later use.
const MAX_KEPT: usize = 4;

/// A source of blocks.
#[derive(Clone, Debug)]
pub enum Source {
    /// A daemon.
    Rpc(Rpc),
    /// A trustless gateway, by its URL: <https://specs.ipfs.tech/http-gateways/trustless-gateway/>.
    Gateway(String),
}

impl Source {
    /// Returns the configured source: the gateway, if there is one.
    pub fn of(settings: &Settings) -> Self {
        match &settings.gateway {
            Some(url) => Self::Gateway(url.clone()),
            None => Self::Rpc(Rpc::of(settings)),
        }
    }

    /// Returns a block, checked against its CID.
    pub async fn block(&self, cid: &Cid) -> Result<Vec<u8>, Error> {
        if let Some(block) = cid.inline_block() {
            return Ok(block.to_vec());
        }
        match self {
            Self::Rpc(rpc) => rpc.block(cid, Lookup::Network).await,
            Self::Gateway(url) => {
                let url = [url, "/ipfs/", &cid.to_string(), "?format=raw"].concat();
                read_block(cid, ask(url, "application/vnd.ipld.raw").await?).await
            }
        }
    }

    /// Returns the blocks of a part of a file of `size` bytes. The root is already read.
    pub async fn blocks(&self, root: &Cid, size: u64, wanted: &Range<u64>) -> Result<Blocks, Error> {
        let car = match self {
            Self::Rpc(rpc) if *wanted == (0..size) => Some(rpc.export(root).await?),
            Self::Rpc(_) => None,
            Self::Gateway(url) => {
                let (from, last) = (wanted.start.to_string(), wanted.end.saturating_sub(1).to_string());
                let query = ["?format=car&car-order=dfs&car-dups=n&dag-scope=entity&entity-bytes=", &from, ":", &last];
                let url = [url, "/ipfs/", &root.to_string(), &query.concat()].concat();
                Some(ask(url, "application/vnd.ipld.car; version=1; order=dfs; dups=n").await?)
            }
        };
        let car = car.map(|body| Car::new(body, sha256));
        Ok(Blocks { source: self.clone(), car, ahead: None, kept: VecDeque::new() })
    }
}

async fn ask(url: String, accept: &str) -> Result<Body, Error> {
    let request = Request::get(url).header("accept", accept);
    Ok(success(Service::Gateway, GATEWAY.send(request).await?).await?.body)
}

/// Fails if the gateway does not answer. Requests the empty identity block, which every gateway has.
pub async fn probe_gateway(url: &str) -> Result<(), Error> {
    ask([url, "/ipfs/bafkqaaa?format=raw"].concat(), "application/vnd.ipld.raw").await.map(drop)
}

/// The blocks of a file, in the order of a walk.
#[derive(Debug)]
pub struct Blocks {
    source: Source,
    car: Option<Car>,
    /// A block of the CAR that is not needed yet.
    ahead: Option<(Cid, Vec<u8>)>,
    kept: VecDeque<(Cid, Vec<u8>)>,
}

impl Blocks {
    /// Returns a block, checked against its CID.
    pub async fn get(&mut self, cid: &Cid) -> Result<Vec<u8>, Error> {
        if let Some((_, block)) = self.kept.iter().find(|(kept, _)| kept == cid) {
            return Ok(block.clone());
        }
        if cid.inline_block().is_none() {
            self.read_on().await?;
        }
        match self.ahead.take() {
            Some((ahead, block)) if ahead == *cid => Ok(block),
            ahead => {
                self.ahead = ahead;
                self.source.block(cid).await
            }
        }
    }

    /// Reads the next block of the CAR, unless one is waiting. Skips blocks that are kept: the CAR repeats them.
    async fn read_on(&mut self) -> Result<(), Error> {
        while self.ahead.is_none()
            && let Some(car) = &mut self.car
        {
            match car.next().await? {
                Some((cid, _)) if self.kept.iter().any(|(kept, _)| *kept == cid) => {}
                Some(next) => self.ahead = Some(next),
                None => self.car = None,
            }
        }
        Ok(())
    }

    /// Keeps a block for later use.
    pub fn keep(&mut self, cid: &Cid, block: &[u8]) {
        let kept = match self.kept.iter().position(|(kept, _)| kept == cid).and_then(|at| self.kept.remove(at)) {
            Some(kept) => kept,
            None => (cid.clone(), block.to_vec()),
        };
        self.kept.truncate(MAX_KEPT - 1);
        self.kept.push_front(kept);
    }
}
