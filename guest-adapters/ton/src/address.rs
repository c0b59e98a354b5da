//! Addresses of accounts, as text.
//!
//! Either raw, `WORKCHAIN:HASH` with the hash as 64 hexadecimal digits, or *user-friendly*: 48 characters of base64, plain or
//! for URLs, of a byte of flags, the workchain, the hash, and a checksum (CRC-16 with the polynomial 0x1021, starting at 0).
//! Source: TEP 2. Addresses are only validated here, so that a typing error is found early.

use data_encoding::{BASE64, BASE64URL};

/// Flags of a user-friendly address: bounceable or not, and either of those for test networks.
const FLAGS: [u8; 4] = [0x11, 0x51, 0x91, 0xd1];

/// Returns whether `text` is a valid address.
pub fn is_address(text: &str) -> bool {
    match text.split_once(':') {
        Some((workchain, hash)) => {
            workchain.parse::<i32>().is_ok() && hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())
        }
        None => is_friendly(text),
    }
}

fn is_friendly(text: &str) -> bool {
    let decoded = BASE64URL.decode(text.as_bytes()).or_else(|_| BASE64.decode(text.as_bytes()));
    let Ok(bytes) = decoded else { return false };
    match bytes.split_last_chunk::<2>() {
        Some((said, sum)) if said.len() == 34 => {
            said.first().is_some_and(|flags| FLAGS.contains(flags)) && crc16(said) == u16::from_be_bytes(*sum)
        }
        _ => false,
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc >> 15 == 1 { crc << 1 ^ 0x1021 } else { crc << 1 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One account, as TEP 2 writes it in its example of the forms, and one of a test network's wallets.
    #[test]
    fn forms_of_addresses() {
        for good in [
            "EQAqbua3_0G_7K_jgzhjJceolfT-TONGsY65wUoBUtZinKC1",
            "EQAqbua3/0G/7K/jgzhjJceolfT+TONGsY65wUoBUtZinKC1",
            "0:2a6ee6b7ff41bfecafe383386325c7a895f4fe4ce346b18eb9c14a0152d6629c",
            "-1:3333333333333333333333333333333333333333333333333333333333333333",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "EQ", "0:", "0:2a", "x:3333333333333333333333333333333333333333333333333333333333333333", ":"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    proptest! {
        /// The checksum finds every single wrong character.
        #[test]
        fn a_typing_error_is_found(at in 0_usize..48, other in "[A-Za-z0-9_-]") {
            let good = "EQAqbua3_0G_7K_jgzhjJceolfT-TONGsY65wUoBUtZinKC1";
            let mut text = good.to_owned();
            text.replace_range(at..=at, &other);
            prop_assert_eq!(is_address(&text), text == good);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,60}") {
            let _ = is_address(&text);
        }
    }
}
