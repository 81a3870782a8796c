//! Loopback, by one message to the kernel (rtnetlink(7)): `RTM_NEWLINK` with `IFF_UP` for interface 1.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// `lo` is the first interface of every network namespace.
const INDEX: i32 = 1;
const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const IFF_UP: u32 = 1;

/// Brings it up and waits for the kernel's acknowledgement.
pub(super) fn bring_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut answer = [0; 256];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    acknowledged(answer.get(..length).unwrap_or_default())
}

/// `nlmsghdr` and `ifinfomsg`, in the machine's byte order.
fn request() -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(INDEX.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    let mut message = Vec::new();
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// An `NLMSG_ERROR` whose error is zero.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_a_header_and_an_interface_of_thirty_two_bytes() {
        let message = request();
        assert_eq!(message.len(), 32);
        assert_eq!(message[..4], 32_u32.to_ne_bytes());
        assert_eq!(message[20..24], 1_i32.to_ne_bytes());
        assert_eq!(message[24..28], message[28..32]);
    }

    #[test]
    fn an_answer_that_is_no_acknowledgement_is_an_error() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = vec![36, 0, 0, 0];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert!(acknowledged(&answer(NLMSG_ERROR, 0)).is_ok());
        assert_eq!(acknowledged(&answer(NLMSG_ERROR, -1)).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(acknowledged(&answer(RTM_NEWLINK, 0)).is_err());
        assert!(acknowledged(&answer(NLMSG_ERROR, 0)[..19]).is_err());
    }
}
