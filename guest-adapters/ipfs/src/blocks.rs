//! Where blocks come from: a CAR that has most of them in order, and one by one what it lacks.
//!
//! A whole file comes from the RPC as one CAR (`dag/export`), any part of one from a gateway (`entity-bytes`). A CAR has
//! each block once; a file may have the same block in many places (an image has the same zeros over and over). So a block that is
//! known to come again is kept, up to [`MAX_KEPT`] of them; what is needed again later than that, and what the CAR does
//! not have for any other reason, is asked for by its name. Either way a block has the name that was asked for, or it is
//! an error. A part of a file from the RPC comes by names alone.

use std::collections::VecDeque;
use std::ops::Range;

use tidelock_sdk::http::{Http, Request};
use tidelock_sdk::{Body, Error};

use crate::car::Car;
use crate::cid::Cid;
use crate::errors::{Who, success};
use crate::options::Settings;
use crate::rpc::{Rpc, Where, whole_block};
use crate::sha256;

/// `grants.http.gateway` in the configuration.
const GATEWAY: Http = Http::granted("gateway");

/// Blocks that are kept because they will be needed again.
const MAX_KEPT: usize = 4;

/// Who is asked for blocks.
#[derive(Clone, Debug)]
pub enum Source {
    /// A daemon.
    Rpc(Rpc),
    /// A trustless gateway, by its URL: <https://specs.ipfs.tech/http-gateways/trustless-gateway/>.
    Gateway(String),
}

impl Source {
    /// The one that the settings name: the gateway, if there is one.
    pub fn of(settings: &Settings) -> Self {
        match &settings.gateway {
            Some(url) => Self::Gateway(url.clone()),
            None => Self::Rpc(Rpc::of(settings)),
        }
    }

    /// A block, which has its name.
    pub async fn block(&self, cid: &Cid) -> Result<Vec<u8>, Error> {
        if let Some(block) = cid.holds() {
            return Ok(block.to_vec());
        }
        match self {
            Self::Rpc(rpc) => rpc.block(cid, Where::Anywhere).await,
            Self::Gateway(url) => {
                let url = [url, "/ipfs/", &cid.to_string(), "?format=raw"].concat();
                whole_block(cid, ask(url, "application/vnd.ipld.raw").await?).await
            }
        }
    }

    /// The blocks of a part of a file of `size` bytes whose root has been read.
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
    Ok(success(Who::Gateway, GATEWAY.send(request).await?).await?.body)
}

/// Whether a gateway answers: it is asked for nothing, which every gateway has (the empty block that is its own name).
pub async fn try_gateway(url: &str) -> Result<(), Error> {
    ask([url, "/ipfs/bafkqaaa?format=raw"].concat(), "application/vnd.ipld.raw").await.map(drop)
}

/// Blocks on their way.
#[derive(Debug)]
pub struct Blocks {
    source: Source,
    car: Option<Car>,
    /// What the CAR gave and was not what was needed: it should be later.
    ahead: Option<(Cid, Vec<u8>)>,
    kept: VecDeque<(Cid, Vec<u8>)>,
}

impl Blocks {
    /// A block, which has its name.
    pub async fn get(&mut self, cid: &Cid) -> Result<Vec<u8>, Error> {
        if let Some((_, block)) = self.kept.iter().find(|(kept, _)| kept == cid) {
            return Ok(block.clone());
        }
        if cid.holds().is_none() {
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

    /// Takes the next block of the CAR, unless one waits already. One that is kept is there twice, and is passed over.
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

    /// Keeps a block for the next time.
    pub fn keep(&mut self, cid: &Cid, block: &[u8]) {
        let kept = match self.kept.iter().position(|(kept, _)| kept == cid).and_then(|at| self.kept.remove(at)) {
            Some(kept) => kept,
            None => (cid.clone(), block.to_vec()),
        };
        self.kept.truncate(MAX_KEPT - 1);
        self.kept.push_front(kept);
    }
}
