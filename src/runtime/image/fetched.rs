//! How far pulls have come, out of containerd's content store.
//!
//! CRI tells nothing between the start and the end of a pull. The store knows
//! what is being written to it: each layer, with its size. It does not know for
//! which image, so what runs side by side is told as one.

use containerd_client::services::v1::ListStatusesRequest;
use containerd_client::services::v1::content_client::ContentClient;
use tonic::Code;
use tonic::transport::Channel;

use super::super::FetchProgress;
use super::super::leftover::of_cri;

/// Reads what is being written; `None` if the runtime does not tell.
pub(super) async fn fetched(channel: Channel) -> Option<FetchProgress> {
    let request = of_cri(ListStatusesRequest::default());
    match ContentClient::new(channel).list_statuses(request).await {
        Ok(answer) => {
            let statuses = answer.into_inner().statuses;
            let sizes = statuses.iter().map(|status| (status.offset, status.total));
            Some(sum(sizes))
        }
        Err(status) => {
            if status.code() != Code::Unimplemented {
                tracing::debug!(error = %crate::error::chain(&status), "no word on running pulls");
            }
            None
        }
    }
}

/// `sizes`: bytes written and bytes to come in all, 0 if not known.
fn sum(sizes: impl Iterator<Item = (i64, i64)>) -> FetchProgress {
    let mut sum = FetchProgress::default();
    for (written, all) in sizes {
        let written = u64::try_from(written).unwrap_or(0);
        sum.parts += 1;
        sum.bytes += written;
        // What has no size yet has at least what is there.
        sum.total_bytes += u64::try_from(all).unwrap_or(0).max(written);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        assert_eq!(sum([].into_iter()), FetchProgress::default());
        let expected = FetchProgress {
            parts: 3,
            bytes: 17,
            total_bytes: 37,
        };
        assert_eq!(sum([(10, 30), (0, 0), (7, 0)].into_iter()), expected);
    }
}
