//! Relaying data, with a fault.

use std::io::{self, BufRead, Write};
use std::net::TcpStream;

use super::{Control, Fault, Injection, reset};

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// Data on its way to `to`, through a fault if there is one.
pub(crate) struct Passage<'a> {
    pub(crate) to: &'a TcpStream,
    pub(crate) control: &'a Control,
    pub(crate) way: Way,
    injection: Option<Injection>,
    /// Data bytes until the fault is injected.
    left: u64,
}

/// A connection is to end here.
pub(crate) fn over(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

impl<'a> Passage<'a> {
    /// `size` is the number of data bytes, if it is known: the fault is injected at one of them.
    pub(crate) fn new(
        to: &'a TcpStream,
        control: &'a Control,
        way: Way,
        injection: Option<Injection>,
        size: Option<u64>,
    ) -> Self {
        let left = injection.map_or(0, |injection| match (injection.fault, size) {
            // Early: what trickles at the very end is merely late, and replies of some have less than a hundred bytes.
            (Fault::Trickle, size) => injection.dice % (size.unwrap_or(512).min(512) / 4).max(1),
            (_, Some(size)) => injection.dice % size.max(1),
            (Fault::Short, None) => 0,
            // Behind what an encoding may have put before the data.
            (_, None) => 4096 + injection.dice % 4096,
        });
        Self { to, control, way, injection, left }
    }

    /// Passes on what is not data.
    pub(crate) fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.count(bytes.len());
        self.to.write_all(bytes)
    }

    /// Passes on data.
    pub(crate) fn data(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let Some(injection) = self.injection else { return self.frame(bytes) };
        if self.left >= bytes.len() as u64 {
            self.left -= bytes.len() as u64;
            return self.frame(bytes);
        }
        let at = self.left as usize;
        match injection.fault {
            Fault::Flip => {
                bytes[at] ^= 1 << ((injection.dice >> 32) % 8);
                self.injection = None;
                self.frame(bytes)
            }
            Fault::Trickle => {
                self.frame(&bytes[..at])?;
                self.left = 0;
                self.trickle(&bytes[at..])
            }
            _ => {
                self.frame(&bytes[..at])?;
                self.inject()
            }
        }
    }

    /// Returns whether data in good form is to end before this next piece.
    pub(crate) fn falls_short(&self, size: u64) -> bool {
        self.left < size && self.injection.is_some_and(|injection| injection.fault == Fault::Short)
    }

    /// The data is over. A fault that has not been injected yet is injected now.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        match self.injection.map(|injection| injection.fault) {
            Some(Fault::Cut | Fault::Reset | Fault::Stall) => self.inject(),
            _ => Ok(()),
        }
    }

    fn inject(&mut self) -> io::Result<()> {
        match self.injection.map(|injection| injection.fault) {
            Some(Fault::Stall) => {
                self.control.hold();
                Err(over("stalled"))
            }
            Some(Fault::Reset) => {
                reset(self.to);
                Err(over("reset"))
            }
            _ => Err(over("cut")),
        }
    }

    fn trickle(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            self.frame(std::slice::from_ref(byte))?;
            if !self.control.tick() {
                return Err(over("trickled"));
            }
        }
        Ok(())
    }

    fn count(&self, bytes: usize) {
        match self.way {
            Way::Up => self.control.went_up(bytes),
            Way::Down => self.control.went_down(bytes),
        }
    }
}

/// Passes on `size` bytes of data, or all until the end.
pub(crate) fn copy(from: &mut impl BufRead, passage: &mut Passage<'_>, size: Option<u64>) -> io::Result<()> {
    let mut left = size.unwrap_or(u64::MAX);
    while left > 0 {
        let piece = from.fill_buf()?;
        if piece.is_empty() {
            return if size.is_none() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let len = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut piece = piece[..len].to_vec();
        from.consume(len);
        left -= len as u64;
        passage.data(&mut piece)?;
    }
    Ok(())
}
