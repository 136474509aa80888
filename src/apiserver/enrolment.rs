//! One certificate from the cluster's signer: a key, a request, an answer, a file.
//!
//! Every step is kept on disk before the next is made: whoever is interrupted goes on
//! with the same key, and so with the same request.

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use tracing::warn;

use super::{ApiError, Signing, SigningOutcome};
use crate::certificate::{PemError, Store, Wish};
use crate::error::chain;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    #[error("cannot make the request for a certificate")]
    Request {
        #[source]
        source: rcgen::Error,
    },
    #[error("cannot use the files of the certificate")]
    Files {
        #[source]
        source: PemError,
    },
    #[error("cannot ask for a certificate")]
    Ask {
        #[source]
        source: ApiError,
    },
    #[error("the request {name} was refused: {why}")]
    Refused { name: String, why: String },
    #[error("nobody has approved the request {name}")]
    Undecided { name: String },
}

/// Asks for the certificate, waits for it, and keeps it as the store's newest.
///
/// # Errors
/// If that fails. It may be tried again at once or later: what was filed is found
/// again, and what was refused is asked for anew.
pub async fn enrol(
    signing: &dyn Signing,
    store: &Store,
    wish: &Wish,
) -> Result<CertifiedKey, EnrolmentError> {
    let files = |source| EnrolmentError::Files { source };
    let key = store.pending_key().map_err(files)?;
    let request = wish
        .request(&key)
        .map_err(|source| EnrolmentError::Request { source })?;
    let name = request.name.clone();
    let outcome = match signing.sign(&request).await {
        Ok(SigningOutcome::Undecided) => return Err(EnrolmentError::Undecided { name }),
        Ok(SigningOutcome::Refused(why)) => Err(EnrolmentError::Refused { name, why }),
        Ok(SigningOutcome::Issued(pem)) => {
            match store.keep(&pem, &key, Timestamp::now()).map_err(files) {
                // A full disk is no reason for another request.
                Err(
                    error @ EnrolmentError::Files {
                        source: PemError::Write { .. },
                    },
                ) => return Err(error),
                kept => kept,
            }
        }
        Err(source) => return Err(EnrolmentError::Ask { source }),
    };
    if let Err(error) = store.forget_pending() {
        // The next request would be the same one, and get the same answer.
        warn!(error = %chain(&error), "cannot remove the key of a request that is over");
    }
    outcome
}
