//! moto: S3 with storage classes that need restores, object lock, key management, and temporary credentials.
//!
//! It is not a store but a stand-in for Amazon's services that keeps everything in memory, and loses it when it ends. It
//! is the one generally available server that implements GLACIER and DEEP_ARCHIVE. It comes from
//! PyPI, every file by its digest (`moto.requirements.txt`).
//!
//! At its start a user, a role and two buckets are created; from then on it checks every signature.
//!
//! Limits, as of 5.2.5: restores never expire, so a restored object stays readable; a restore advances
//! only on a HEAD, see [`Restores`]; neither tiers nor the days of a second request have an effect;
//! it drops the lock of a multipart object; it does not check `Content-MD5`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::daemon::{Daemon, free_ports};
use super::http::send;
use super::python::Python;
use super::state::Record;
use crate::{say, skip};

/// Its name on the command line and in the state file.
pub const NAME: &str = "moto";
/// The version of the PyPI package `moto`.
pub const VERSION: &str = "5.2.5";
/// A bucket without anything special.
pub const BUCKET: &str = "archive";
/// A bucket with object lock, and so with versions.
pub const LOCKED_BUCKET: &str = "locked";
/// The region of both.
pub const REGION: &str = "us-east-1";

/// A start takes 1 to 2 s; on a machine that also compiles, far longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Keys of an account.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
    /// The session token of temporary ones.
    pub session_token: Option<String>,
}

/// How restores that are asked for go on. Holds for all objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restores {
    /// The first look at an object after the request finds the restore under way, the next one finds it done.
    AtTheNextLook,
    /// Those that are under way stay so. One that nobody has looked at since it was asked for counts as done.
    Stand,
    /// All are done.
    Done,
}

/// A moto of one's own. Dropped, it is killed.
#[derive(Debug)]
pub struct Moto {
    /// The S3 service, as in `http://127.0.0.1:12345`.
    pub endpoint: String,
    /// The port of that.
    pub port: u16,
    /// The keys of a user who may do anything. They change with every start.
    pub keys: Keys,
    /// Temporary keys that are as good for an hour, and nothing without their session token.
    pub temporary_keys: Keys,
    daemon: Daemon,
}

impl Moto {
    /// Installs it if needed, starts it on a free port and waits until it would take an object.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidelock-moto-").tempdir().context("no temporary folder")?;
        Self::start_on_a_free_port(&dir.keep(), true)
    }

    /// The same with its log in `dir`, which stays.
    pub fn start_in(dir: &Path) -> Result<Self> {
        Self::start_on_a_free_port(dir, false)
    }

    fn start_on_a_free_port(dir: &Path, temporary: bool) -> Result<Self> {
        let python = install()?;
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match Self::try_start(&python, dir, temporary) {
                Err(error) if attempts > 0 => say!("trying another port: {error:#}"),
                result => return result,
            }
        }
    }

    fn try_start(python: &Python, dir: &Path, temporary: bool) -> Result<Self> {
        let ports = free_ports(1)?;
        let port = ports.first().copied().context("no port is free")?;
        let code = format!("from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])");
        let mut daemon = Daemon::new(NAME, &python.program, python.arguments(&code), dir, temporary)?;
        daemon.start(PATIENCE, || send(port, "GET", "/moto-api/", &[], "").is_ok())?;
        let (keys, temporary_keys) = furnish(port)?;
        skip::server("moto", VERSION);
        Ok(Self { endpoint: format!("http://127.0.0.1:{port}"), port, keys, temporary_keys, daemon })
    }

    /// How restores go on from now on; at the start it is [`Restores::AtTheNextLook`].
    pub fn restores(&self, how: Restores) -> Result<()> {
        restores(self.port, how)
    }

    /// Makes a user who may do only this, as in `s3:GetObject`. Nobody else may ask the server for anything meanwhile.
    pub fn user(&self, name: &str, actions: &[&str]) -> Result<Keys> {
        trust(self.port, USER_REQUESTS)?;
        make_user(self.port, name, &policy(actions))
    }

    /// Kills it with SIGKILL, and everything that it held is gone.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Leaves it running after this process; its folder must be one that was given.
    pub(super) fn detach(self) -> Result<Record> {
        let settings = [
            ("endpoint", self.endpoint),
            ("region", REGION.into()),
            ("bucket", BUCKET.into()),
            ("access_key", self.keys.access_key),
            ("secret_key", self.keys.secret_key),
        ];
        let settings = settings.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        Record::of(VERSION, self.daemon, settings)
    }
}

/// Its packages, installed into the cache if they are not there.
pub fn install() -> Result<Python> {
    let what = format!("moto {VERSION}");
    Python::with(
        &format!("moto-{VERSION}"),
        &what,
        "to run moto, which stands in for Amazon's archive",
        include_str!("moto.requirements.txt"),
    )
}

/// The account is moto's own invention.
const ROLE: &str = "arn:aws:iam::123456789012:role/visitor";

/// Makes user, role and buckets, and has signatures checked from then on. Returns the keys of both.
fn furnish(port: u16) -> Result<(Keys, Keys)> {
    let anything = policy(&["*"]);
    let owner = make_user(port, "owner", &anything)?;
    ask(port, "iam", &format!("Action=CreateRole&RoleName=visitor&AssumeRolePolicyDocument={anything}"))?;
    ask(port, "iam", &format!("Action=PutRolePolicy&RoleName=visitor&PolicyName=all&PolicyDocument={anything}"))?;
    let temporary = ask(port, "sts", &format!("Action=AssumeRole&RoleArn={}&RoleSessionName=visit", encode(ROLE)))?;
    let caller = caller("s3");
    send(port, "PUT", &format!("/{BUCKET}"), &[&caller], "")?;
    send(port, "PUT", &format!("/{LOCKED_BUCKET}"), &[&caller, "x-amz-bucket-object-lock-enabled: true"], "")?;
    restores(port, Restores::AtTheNextLook)?;
    trust(port, 0)?;
    Ok((owner, keys(&temporary)?))
}

/// Lets so many requests in without a signature; those after them need one.
fn trust(port: u16, requests: u32) -> Result<()> {
    let json = "Content-Type: application/json";
    send(port, "POST", "/moto-api/reset-auth", &[json], &requests.to_string()).map(drop)
}

/// Makes a user in [`USER_REQUESTS`] requests.
fn make_user(port: u16, name: &str, policy: &str) -> Result<Keys> {
    ask(port, "iam", &format!("Action=CreateUser&UserName={name}"))?;
    ask(port, "iam", &format!("Action=PutUserPolicy&UserName={name}&PolicyName=all&PolicyDocument={policy}"))?;
    keys(&ask(port, "iam", &format!("Action=CreateAccessKey&UserName={name}"))?)
}

const USER_REQUESTS: u32 = 3;

/// Allows these actions on everything, as a query's value.
fn policy(actions: &[&str]) -> String {
    let statement = serde_json::json!({ "Effect": "Allow", "Action": actions, "Resource": "*" });
    encode(&serde_json::json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string())
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The header that names the service, as every request has it; the signature is not checked.
fn caller(service: &str) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=setup/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

fn ask(port: u16, service: &str, query: &str) -> Result<String> {
    let form = "Content-Type: application/x-www-form-urlencoded";
    send(port, "POST", "/", &[&caller(service), form], query)
}

fn restores(port: u16, how: Restores) -> Result<()> {
    let transition = match how {
        Restores::AtTheNextLook => r#"{"progression":"manual","times":1}"#,
        Restores::Stand => r#"{"progression":"manual","times":1000000}"#,
        Restores::Done => r#"{"progression":"immediate"}"#,
    };
    let body = format!(r#"{{"model_name":"s3::keyrestore","transition":{transition}}}"#);
    let path = "/moto-api/state-manager/set-transition";
    send(port, "POST", path, &["Content-Type: application/json"], &body).map(drop)
}

fn keys(xml: &str) -> Result<Keys> {
    let value = |tag: &str| {
        let (_, rest) = xml.split_once(&format!("<{tag}>"))?;
        rest.split_once("</").map(|(value, _)| value.to_owned())
    };
    Ok(Keys {
        access_key: value("AccessKeyId").context("moto gave no access key")?,
        secret_key: value("SecretAccessKey").context("moto gave no secret key")?,
        session_token: value("SessionToken"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_checks_signatures_and_is_gone_when_killed() -> Result<()> {
        let mut moto = Moto::start()?;
        let port = moto.port;
        let error = send(port, "PUT", "/another", &[&caller("s3")], "").unwrap_err().to_string();
        assert!(error.contains("InvalidAccessKeyId"), "{error}");
        assert!(moto.temporary_keys.session_token.is_some() && moto.keys.session_token.is_none());
        moto.kill();
        assert!(send(port, "GET", "/moto-api/", &[], "").is_err());
        Ok(())
    }

    #[test]
    fn keys_are_read_from_its_output() -> Result<()> {
        let xml = "<A><AccessKeyId>AK</AccessKeyId><SecretAccessKey>a/b+c</SecretAccessKey></A>";
        let read = keys(xml)?;
        assert_eq!((read.access_key.as_str(), read.secret_key.as_str()), ("AK", "a/b+c"));
        assert!(read.session_token.is_none() && keys("<A/>").is_err());
        Ok(())
    }
}
