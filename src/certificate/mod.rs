//! Certificates that this node gets from the cluster's signers: the files they
//! are kept in, what is asked for, and when to ask again.
//!
//! In: files, names, times. Out: key pairs, requests, deadlines. Nobody is
//! talked to here: that is `apiserver::identity` for the client's certificate, and
//! `server::tls` for the server's.
//!
//! | file | what |
//! |---|---|
//! | `pem` | a certificate and its key from PEM, and what the certificate says |
//! | `store` | `<name>-<time>.pem` behind `<name>-current.pem`, and the key of a request under way |
//! | `request` | what is sent to a signer; pure |
//! | `renewal` | when to ask again; pure |

mod pem;
mod renewal;
mod request;
mod store;
#[cfg(test)]
mod tests;

pub use pem::{PemError, key_pair, make_directory, read, split, validity, write_private};
pub use renewal::renew_at;
pub use request::{Names, SigningRequest, Wish, certified_names, is_of_node};
pub use store::Store;
