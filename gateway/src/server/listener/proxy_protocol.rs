//! The PROXY protocol, versions 1 and 2: with which header a proxy that passes bytes on says who its client is.
//!
//! Owns reading that header off a connection and not a byte more: what follows is TLS's or HTTP's. Extensions (TLVs) are
//! skipped, checksums among them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The longest header of version 1, its end of line included.
const MAX_V1: usize = 107;
const V1_PREFIX: &[u8] = b"PROXY ";

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// The longest header of version 2 behind its fixed part. The largest that is known to be sent, with a client's
/// certificate in it, has less.
const MAX_V2_REST: usize = 4 * 1024;

/// Bytes that are looked at together: headers without certificates fit.
const CHUNK: usize = 256;

/// Why a connection says nothing of its client.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("it does not begin with a header of the PROXY protocol")]
    Missing,
    #[error("the header of the PROXY protocol cannot be read")]
    Malformed,
    #[error("the header of the PROXY protocol is too long")]
    TooLong,
    #[error("the connection ended within the header of the PROXY protocol")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads the header. `None`: the proxy speaks for itself, or does not know its client.
pub(super) async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut header = Vec::with_capacity(CHUNK);
    loop {
        // Peeking leaves what is behind the header where it is.
        let mut chunk = [0; CHUNK];
        let seen = stream.peek(&mut chunk).await?;
        if seen == 0 {
            return Err(ProxyError::Closed);
        }
        let before = header.len();
        header.extend_from_slice(&chunk[..seen]);
        let parsed = parse(&header)?;
        let taken = match &parsed {
            Parsed::Incomplete => seen,
            Parsed::Header { len, .. } => len - before,
        };
        stream.read_exact(&mut chunk[..taken]).await?;
        if let Parsed::Header { source, .. } = parsed {
            return Ok(source);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// What came so far may become a header.
    Incomplete,
    /// A header of so many bytes, and whom it names.
    Header { len: usize, source: Option<SocketAddr> },
}

fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    if begins(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins(bytes, V1_PREFIX) {
        parse_v1(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

/// Whether bytes begin with others, as far as they go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let len = bytes.len().min(with.len());
    bytes[..len] == with[..len]
}

/// `PROXY TCP4 203.0.113.7 10.0.0.1 4711 3000\r\n`.
fn parse_v1(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < MAX_V1 { Ok(Parsed::Incomplete) } else { Err(ProxyError::TooLong) };
    };
    let text = std::str::from_utf8(&line[..end]).map_err(|_| ProxyError::Malformed)?;
    let source = v1_source(text).ok_or(ProxyError::Malformed)?;
    Ok(Parsed::Header { len: end + 2, source })
}

fn v1_source(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever stands behind it means nothing.
        return Some(None);
    }
    let mut word = || words.next();
    let (source, destination, source_port, destination_port) = (word()?, word()?, word()?, word()?);
    let address: IpAddr = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    port(destination_port)?;
    let source = SocketAddr::new(address, port(source_port)?);
    words.next().is_none().then_some(Some(source))
}

/// Digits only: no sign, and no zeros in front.
fn port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED) else { return Ok(Parsed::Incomplete) };
    let (command, family) = (fixed[12], fixed[13]);
    let rest_len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if rest_len > MAX_V2_REST {
        return Err(ProxyError::TooLong);
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed),
    };
    let Some(rest) = rest.get(..rest_len) else { return Ok(Parsed::Incomplete) };
    let source = match family {
        _ if is_local => None,
        // TCP over IPv4, over IPv6.
        0x11 => Some(v2_source::<4>(rest, 8)?),
        0x21 => Some(v2_source::<16>(rest, 32)?),
        // Not told, datagrams, and sockets of Unix: somebody who has no address here.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Parsed::Header { len: V2_FIXED + rest_len, source })
}

/// Source, destination, their ports; then extensions.
fn v2_source<const LEN: usize>(rest: &[u8], ports: usize) -> Result<SocketAddr, ProxyError>
where
    IpAddr: From<[u8; LEN]>,
{
    let address = rest.first_chunk::<LEN>().ok_or(ProxyError::Malformed)?;
    let port = rest.get(ports..).and_then(|rest| rest.first_chunk::<4>()).ok_or(ProxyError::Malformed)?;
    Ok(SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes([port[0], port[1]])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((rest.len() as u16).to_be_bytes());
        header.extend(rest);
        header
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x0b, 0xb8];

    fn v6() -> Vec<u8> {
        let mut rest = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
        rest.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        rest.extend([0x12, 0x67, 0x0b, 0xb8]);
        rest
    }

    /// Headers, and whom they name.
    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let text = |text: &str| text.as_bytes().to_vec();
        let mut with_tlv = V4.to_vec();
        with_tlv.extend([0x04, 0x00, 0x02, 1, 2, 0xee, 0x00, 0x00]);
        let largest: Vec<u8> = V4.iter().copied().chain(std::iter::repeat_n(0, MAX_V2_REST - 12)).collect();
        vec![
            (text("PROXY TCP4 203.0.113.7 10.0.0.1 4711 3000\r\n"), Some("203.0.113.7:4711")),
            (text("PROXY TCP6 2001:db8::7 2001:db8::1 4711 3000\r\n"), Some("[2001:db8::7]:4711")),
            (text("PROXY TCP4 203.0.113.7 10.0.0.1 0 65535\r\n"), Some("203.0.113.7:0")),
            (text("PROXY UNKNOWN\r\n"), None),
            (text("PROXY UNKNOWN ffff::1 what ever\r\n"), None),
            (v2(0x21, 0x11, &V4), Some("203.0.113.7:4711")),
            (v2(0x21, 0x21, &v6()), Some("[2001:db8::7]:4711")),
            (v2(0x21, 0x11, &with_tlv), Some("203.0.113.7:4711")),
            (v2(0x21, 0x11, &largest), Some("203.0.113.7:4711")),
            (v2(0x20, 0x11, &V4), None),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x21, 0x00, &[9; 40]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ]
    }

    #[test]
    fn headers_name_the_client() {
        for (bytes, source) in good() {
            let source = source.map(|source| source.parse().unwrap());
            let expected = Parsed::Header { len: bytes.len(), source };
            assert_eq!(parse(&bytes).unwrap(), expected, "{:?}", String::from_utf8_lossy(&bytes));
            let mut behind = bytes.clone();
            behind.extend(b"GET / HTTP/1.1\r\n\r\n");
            assert_eq!(parse(&behind).unwrap(), expected);
            for len in 0..bytes.len() {
                assert_eq!(parse(&bytes[..len]).unwrap(), Parsed::Incomplete, "{len} of {bytes:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_none() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1));
        let lines = [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 203.0.113.7 10.0.0.1 4711 3000\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711 3000 x\r\n",
            "PROXY TCP4  203.0.113.7 10.0.0.1 4711 3000\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 +4711 3000\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 04711 3000\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 65536 3000\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 4711 3000\r\n",
            "PROXY TCP6 203.0.113.7 10.0.0.1 4711 3000\r\n",
            "PROXY UDP4 203.0.113.7 10.0.0.1 4711 3000\r\n",
            "PROXY \r\n",
            "PROXY TCP4 203.0.113.\u{e9} 10.0.0.1 4711 3000\r\n",
            &long,
        ];
        for line in lines {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        let binary = [
            v2(0x11, 0x11, &V4),
            v2(0x22, 0x11, &V4),
            v2(0x21, 0x13, &V4),
            v2(0x21, 0x41, &V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, &V4),
            v2(0x21, 0x11, &[0; MAX_V2_REST + 1]),
        ];
        for bytes in binary {
            assert!(parse(&bytes).is_err(), "{bytes:?}");
        }
        // It is known to be too long before the rest of it has come.
        assert!(matches!(parse(&v2(0x21, 0x11, &[0; MAX_V2_REST + 1])[..16]), Err(ProxyError::TooLong)));
        assert!(matches!(parse(b"\x16\x03\x01"), Err(ProxyError::Missing)));
    }

    proptest! {
        /// No input panics, and what is a header stays one whatever follows.
        #[test]
        fn bytes_are_judged(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            match kind {
                0 => bytes.splice(0..0, V2_SIGNATURE.iter().copied().chain([0x21])).for_each(drop),
                1 => bytes.splice(0..0, *b"PROXY TCP4 ").for_each(drop),
                _ => {}
            }
            if let Ok(Parsed::Header { len, source }) = parse(&bytes) {
                prop_assert!(len <= bytes.len());
                prop_assert_eq!(parse(&bytes[..len]).unwrap(), Parsed::Header { len, source });
            }
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// In one piece and byte by byte: the header is taken, and nothing behind it.
    #[tokio::test]
    async fn a_header_is_read_off_a_connection_and_not_a_byte_more() {
        for (bytes, source) in good() {
            for size in [bytes.len() + 4, 1] {
                let (mut client, mut server) = pair().await;
                let mut all = bytes.clone();
                all.extend(b"rest");
                let send = async {
                    for piece in all.chunks(size) {
                        client.write_all(piece).await.unwrap();
                        // Lets the other side see it.
                        tokio::task::yield_now().await;
                    }
                    client.shutdown().await.unwrap();
                };
                let read = async {
                    let found = read_header(&mut server).await.unwrap();
                    let mut rest = String::new();
                    server.read_to_string(&mut rest).await.unwrap();
                    (found, rest)
                };
                let ((), (found, rest)) = tokio::join!(send, read);
                assert_eq!(found, source.map(|source| source.parse().unwrap()));
                assert_eq!(rest, "rest");
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_within_its_header_says_so() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"PROXY TCP4 203.0.").await.unwrap();
        drop(client);
        assert!(matches!(read_header(&mut server).await, Err(ProxyError::Closed)));
    }
}
