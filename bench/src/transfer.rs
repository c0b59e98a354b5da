//! Large objects to and from S3: the adapter in its sandbox, its capability, and its peers, alternating.
//!
//! All of them transfer the same random bytes from memory to the same server, whose data is in memory if there is room,
//! and discard them on reading. In a first round, which does not count, all bytes read are compared with the stored ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Serialize;
use tidelock::capabilities::Capabilities;
use tidelock::capabilities::bucket::{Bucket, PutOptions, S3Bucket};
use tidelock::capabilities::grant::{BucketCredentials, Secret};
use tidelock::config::{Config, CredentialRef};
use tidelock::runtime::{Adapter, BackendSpec, EngineOptions, Limits, Sandbox};
use tidelock::types::{Body, ObjectId, StoreHint};
use tidelock::{Host, Secrets, SnapshotId, Source, StoreOptions};

use crate::peers::{OpenDal, Sdk, Sink};
use crate::place::Server;
use crate::stats::{median, rounded};
use crate::{MIB, data, place};

/// The object's bytes.
pub const SIZE: u64 = 256 * MIB;
/// In how large pieces they come, which is how a host reads an image.
const CHUNK: usize = 2 << 20;
/// Rounds of reading for each of storing.
const READS: usize = 3;
/// The object that is read.
const READ: &str = "read";

/// Who moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The adapter `s3` in its sandbox.
    Adapter,
    /// A host: adapter, hashing or checking every byte, and the catalogue.
    Host,
    /// The capability that the adapter uses, called by this program.
    Capability,
    SdkWhole,
    SdkParts,
    OpenDalWhole,
    OpenDalParts,
}

impl Who {
    const ALL: [Self; 7] = [
        Self::Adapter,
        Self::Host,
        Self::Capability,
        Self::SdkWhole,
        Self::SdkParts,
        Self::OpenDalWhole,
        Self::OpenDalParts,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Host => "host",
            Self::Capability => "capability",
            Self::SdkWhole => "aws-sdk-s3, one request",
            Self::SdkParts => "aws-sdk-s3, parts at once",
            Self::OpenDalWhole => "opendal, one request",
            Self::OpenDalParts => "opendal, parts at once",
        }
    }

    fn is_peer(self) -> bool {
        matches!(self, Self::SdkWhole | Self::SdkParts | Self::OpenDalWhole | Self::OpenDalParts)
    }
}

/// What one contestant reached.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Who.
    pub who: &'static str,
    /// The median of its rounds, in MiB/s.
    pub mib_s: f64,
    /// The slowest and the fastest round.
    pub range: [f64; 2],
    /// Processor time of this process for one object, in ms, the median of its rounds. The server's is not in it.
    pub cpu_ms: f64,
    /// The median, over the rounds, of the adapter's rate to this one's.
    pub adapter_ratio: f64,
}

/// One direction.
#[derive(Debug, Serialize)]
pub struct Direction {
    /// The adapter's rate to that of its faster peer.
    pub ratio: f64,
    /// That peer.
    pub peer: &'static str,
    /// Everybody.
    pub rows: Vec<Row>,
}

/// Both directions.
#[derive(Debug, Serialize)]
pub struct Transfer {
    /// Bytes of the object.
    pub bytes: u64,
    /// Rounds that count: of storing, and of reading, which is quicker and less even.
    pub rounds: [usize; 2],
    /// Whether the server's data was in memory.
    pub in_memory: bool,
    /// Storing.
    pub put: Direction,
    /// Reading.
    pub get: Direction,
    /// Bytes that crossed guest memory, all puts and gets of the adapter together.
    pub guest_bytes: u64,
}

/// Measures so many rounds. `note` gets each step.
pub async fn run(rounds: usize, note: impl Fn(&str)) -> Result<Transfer> {
    let puts = SIZE * (rounds as u64 + 2) * Who::ALL.len() as u64;
    let dir = place::fast(puts + 3 * SIZE)?;
    let server = Server::start(dir.path())?;
    let field = Field::open(&server, dir.path()).await?;
    note("storing 256 MiB over S3, in turns");
    let put = field.rounds(rounds, Way::Put).await?;
    note("reading 256 MiB over S3, in turns");
    field.sdk.put_parts(READ, field.data.clone()).await?;
    let get = field.rounds(rounds * READS, Way::Get).await?;
    Ok(Transfer {
        bytes: SIZE,
        rounds: [rounds, rounds * READS],
        in_memory: dir.path().starts_with("/dev/shm"),
        put,
        get,
        guest_bytes: field.adapter.bytes_through_guest(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Put,
    Get,
}

/// Everybody, and what they move.
struct Field {
    data: Bytes,
    image: std::path::PathBuf,
    adapter: Arc<Adapter>,
    capability: S3Bucket,
    host: Host,
    sdk: Sdk,
    opendal: OpenDal,
}

impl Field {
    async fn open(server: &Server, dir: &Path) -> Result<Self> {
        let data = data::random_bytes(SIZE)?;
        let image = dir.join("image");
        tokio::fs::write(&image, &data).await?;
        let config = Config::parse(&server.config(&dir.join("data")), dir)?;
        Ok(Self {
            data,
            image,
            adapter: adapter(server).await?,
            capability: S3Bucket::open(&server.grant())?,
            host: Host::start(&config, &Keys(server.grant().credentials.context("the server has keys")?)).await?,
            sdk: Sdk::new(server.seaweed()),
            opendal: OpenDal::new(server.seaweed())?,
        })
    }

    async fn rounds(&self, rounds: usize, way: Way) -> Result<Direction> {
        let mut taken = vec![Vec::new(); Who::ALL.len()];
        let stored = if way == Way::Get { Some(self.store_image().await?) } else { None };
        for round in 0..=rounds {
            for turn in 0..Who::ALL.len() {
                let index = (turn + round) % Who::ALL.len();
                let who = Who::ALL[index];
                let lap = match stored {
                    None => self.put(who, round).await,
                    Some(id) => self.get(who, id, round == 0).await,
                };
                let lap = lap.with_context(|| format!("{} failed", who.name()))?;
                // The first round makes connections and the server's volumes.
                if round > 0 {
                    taken[index].push(lap);
                }
            }
        }
        Ok(direction(&taken))
    }

    /// Stores one object, which is gone afterwards.
    async fn put(&self, who: Who, round: usize) -> Result<Lap> {
        let key = format!("{}-{round}", who.name().replace([' ', ','], "-"));
        let data = self.data.clone();
        let began = Began::now()?;
        let mut gone = Some(key.clone());
        match who {
            Who::Adapter => {
                let hint = StoreHint { key, size: Some(SIZE), labels: Vec::new() };
                let receipt = self.adapter.store(body(&data), hint).await?;
                ensure!(receipt.size == SIZE, "the adapter stored {} bytes", receipt.size);
                gone = Some(receipt.id.as_str().to_owned());
            }
            Who::Host => gone = None,
            Who::Capability => {
                let options = PutOptions { size: Some(SIZE), if_absent: true, ..PutOptions::default() };
                self.capability.put(&key, body(&data), options).await?;
            }
            Who::SdkWhole => self.sdk.put(&key, data).await?,
            Who::SdkParts => self.sdk.put_parts(&key, data).await?,
            Who::OpenDalWhole => self.opendal.put(&key, data).await?,
            Who::OpenDalParts => self.opendal.put_parts(&key, data).await?,
        }
        match gone {
            Some(key) => {
                let lap = began.lap()?;
                self.sdk.delete(&key).await?;
                Ok(lap)
            }
            None => {
                let id = self.store_image().await?;
                let lap = began.lap()?;
                // Otherwise the host would know the image next time, and send nothing.
                self.host.remove(id).await?;
                Ok(lap)
            }
        }
    }

    async fn store_image(&self) -> Result<SnapshotId> {
        let source = Source::open(&self.image).await?;
        Ok(self.host.store(source, StoreOptions::default()).await?.id)
    }

    /// Reads the object, which is compared with what was stored if `check`.
    async fn get(&self, who: Who, id: SnapshotId, check: bool) -> Result<Lap> {
        let (mut seen, mut same) = (0, true);
        let mut sink = |chunk: &[u8]| {
            if check {
                same &= self.data.get(seen..seen + chunk.len()) == Some(chunk);
            }
            seen += chunk.len();
        };
        let began = Began::now()?;
        let object = ObjectId::new(READ)?;
        match who {
            Who::Adapter => drain(self.adapter.retrieve(&object, None).await?, &mut sink).await?,
            Who::Host => drain(self.host.retrieve(id, None).await?.body, &mut sink).await?,
            Who::Capability => drain(self.capability.get(READ, None).await?.body, &mut sink).await?,
            Who::SdkWhole => self.sdk.get(READ, &mut sink).await?,
            Who::SdkParts => self.sdk.get_ranges(READ, SIZE, &mut sink).await?,
            Who::OpenDalWhole => self.opendal.get(READ, SIZE, &mut sink).await?,
            Who::OpenDalParts => self.opendal.get_ranges(READ, SIZE, &mut sink).await?,
        }
        let lap = began.lap()?;
        ensure!(same && seen as u64 == SIZE, "what was read is not what was stored ({seen} bytes)");
        Ok(lap)
    }
}

/// One object of one contestant.
#[derive(Clone, Copy)]
struct Lap {
    mib_s: f64,
    cpu_ms: f64,
}

/// When an object was begun.
struct Began {
    at: Instant,
    cpu_ms: f64,
}

impl Began {
    fn now() -> Result<Self> {
        Ok(Self { cpu_ms: cpu_ms()?, at: Instant::now() })
    }

    fn lap(&self) -> Result<Lap> {
        let seconds = self.at.elapsed().as_secs_f64();
        Ok(Lap { mib_s: (SIZE / MIB) as f64 / seconds, cpu_ms: cpu_ms()? - self.cpu_ms })
    }
}

/// Processor time of this process so far: fields 14 and 15 of `/proc/self/stat` (proc(5)), in hundredths of a second.
fn cpu_ms() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, fields) = text.rsplit_once(") ").context("/proc/self/stat has no name")?;
    let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks * 10.0)
}

/// Medians of the rates, and of the ratios within a round.
fn direction(laps: &[Vec<Lap>]) -> Direction {
    let rates: Vec<Vec<f64>> = laps.iter().map(|laps| laps.iter().map(|lap| lap.mib_s).collect()).collect();
    let ours = &rates[0];
    let row = |((who, theirs), laps): ((Who, &Vec<f64>), &Vec<Lap>)| {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let extreme = |pick: fn(f64, f64) -> f64| rounded(theirs.iter().copied().reduce(pick).unwrap_or(0.0), 0);
        Row {
            who: who.name(),
            mib_s: rounded(median(theirs), 0),
            range: [extreme(f64::min), extreme(f64::max)],
            cpu_ms: rounded(median(&laps.iter().map(|lap| lap.cpu_ms).collect::<Vec<_>>()), 0),
            adapter_ratio: rounded(median(&ratios), 3),
        }
    };
    let rows: Vec<Row> = Who::ALL.into_iter().zip(&rates).zip(laps).map(row).collect();
    let peers = rows.iter().zip(Who::ALL).filter(|(_, who)| who.is_peer()).map(|(row, _)| row);
    let faster = peers.max_by(|a, b| a.mib_s.total_cmp(&b.mib_s));
    let (ratio, peer) = faster.map_or((0.0, ""), |row| (row.adapter_ratio, row.who));
    Direction { ratio, peer, rows }
}

async fn adapter(server: &Server) -> Result<Arc<Adapter>> {
    let mut capabilities = Capabilities::none();
    capabilities.grant_bucket("objects", &server.grant())?;
    let spec = BackendSpec {
        name: "cloud".into(),
        capabilities,
        settings: Default::default(),
        limits: Limits::default(),
        trust: Default::default(),
    };
    let engine = Sandbox::new(EngineOptions::default())?;
    Ok(Arc::new(Adapter::load(&engine, &spec, component("s3")?).await?))
}

/// A component that travels in the library.
pub fn component(name: &str) -> Result<Vec<u8>> {
    let bytes = tidelock::builtin::builtin(name).map(<[u8]>::to_vec);
    bytes.with_context(|| format!("the adapter {name} was not built; run `cargo xtask bench sandbox`"))
}

pub(crate) fn body(data: &Bytes) -> Body {
    let (data, len) = (data.clone(), data.len());
    let chunks = (0..len).step_by(CHUNK).map(move |at| Ok(data.slice(at..len.min(at + CHUNK))));
    Body::new(futures::stream::iter(chunks), Some(len as u64))
}

pub(crate) async fn drain(mut body: Body, sink: Sink<'_>) -> Result<()> {
    while let Some(chunk) = body.next().await {
        sink(&chunk?);
    }
    Ok(())
}

/// The server's keys, whatever a configuration calls them.
struct Keys(BucketCredentials);

impl Secrets for Keys {
    fn bucket(&self, _: &CredentialRef) -> tidelock::Result<BucketCredentials> {
        Ok(self.0.clone())
    }

    fn http(&self, reference: &CredentialRef) -> tidelock::Result<Secret> {
        Err(tidelock::Error::invalid(format!("no benchmark needs the header {reference:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_to_the_faster_peer_round_by_round() {
        let laps = |rates: [f64; 3]| rates.map(|mib_s| Lap { mib_s, cpu_ms: 1.0 }).to_vec();
        let mut all = vec![laps([100.0; 3]); Who::ALL.len()];
        all[0] = laps([90.0, 190.0, 285.0]);
        // Faster than any peer, but not one.
        all[2] = laps([999.0; 3]);
        all[4] = laps([100.0, 200.0, 300.0]);
        let direction = direction(&all);
        assert_eq!((direction.ratio, direction.peer), (0.95, "aws-sdk-s3, parts at once"));
    }

    #[test]
    fn work_takes_processor_time() -> Result<()> {
        let before = cpu_ms()?;
        let mut digest = 0_u64;
        while cpu_ms()? <= before {
            digest = std::hint::black_box(digest.wrapping_mul(31).wrapping_add(7));
        }
        assert!(cpu_ms()? >= before + 10.0);
        Ok(())
    }
}
