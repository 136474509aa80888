//! User namespaces: which IDs of the host the users of a pod are.
//!
//! In: what `/etc/subuid` and `/etc/subgid` set aside for this node, and the
//! blocks that pods have. Out: a block for one more pod, and the text of the
//! file that keeps it. File name and format are upstream's, so that either agent
//! can take over the other's pods.

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Blocks of IDs are whole multiples of this, and none begins below: those IDs
/// are the host's own users.
pub const UNIT: u32 = 65_536;

/// Who owns the node's subordinate IDs.
const OWNER: &str = "kubelet";

/// One block of IDs, for users and groups alike (CRI `IDMapping`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    /// The host's ID of `container_id`.
    pub host_id: u32,
    pub container_id: u32,
    pub length: u32,
}

impl IdMapping {
    fn overlaps(self, other: Self) -> bool {
        let end = |mapping: Self| u64::from(mapping.host_id) + u64::from(mapping.length);
        u64::from(self.host_id) < end(other) && u64::from(other.host_id) < end(self)
    }
}

/// The IDs from which pods get their blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    first: u32,
    per_pod: u32,
    blocks: u32,
}

/// Subordinate IDs that pods cannot be given blocks of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdRangeError {
    #[error("{file}: {line:?} is not NAME:FIRST:COUNT")]
    Malformed { file: &'static str, line: String },
    #[error("{file}: {OWNER} has more than one range")]
    SeveralRanges { file: &'static str },
    #[error("the subordinate users and groups of {OWNER} differ")]
    Different,
    #[error("the first subordinate ID {first} is not a multiple of {per_pod} above zero")]
    First { first: u32, per_pod: u32 },
    #[error("{count} subordinate IDs are not a multiple of {per_pod}")]
    Count { count: u32, per_pod: u32 },
    #[error("{count} subordinate IDs, {per_pod} for each pod, are not enough for {pods} pods")]
    TooFew { count: u32, per_pod: u32, pods: u32 },
}

impl IdRange {
    /// The range of a node with `pods` pods and `per_pod` IDs for each, a
    /// multiple of [`UNIT`]. `subuid` and `subgid` are the texts of the files in
    /// `/etc`, empty if there are none; where they say nothing, the IDs right
    /// after the first block are taken.
    ///
    /// # Errors
    /// If the files set IDs aside for this node which will not do.
    pub fn of_node(
        subuid: &str,
        subgid: &str,
        per_pod: u32,
        pods: u32,
    ) -> Result<Self, IdRangeError> {
        let users = subordinate("/etc/subuid", subuid)?;
        let groups = subordinate("/etc/subgid", subgid)?;
        if users != groups {
            return Err(IdRangeError::Different);
        }
        let per_pod = per_pod.max(UNIT);
        let Some((first, count)) = users else {
            return Ok(Self::unconfigured(per_pod, pods));
        };
        if first == 0 || first % per_pod != 0 {
            return Err(IdRangeError::First { first, per_pod });
        }
        if count % per_pod != 0 {
            return Err(IdRangeError::Count { count, per_pod });
        }
        let blocks = count / per_pod;
        if blocks < pods {
            return Err(IdRangeError::TooFew {
                count,
                per_pod,
                pods,
            });
        }
        Ok(Self {
            first,
            per_pod,
            blocks,
        })
    }

    fn unconfigured(per_pod: u32, pods: u32) -> Self {
        let room = (u32::MAX - per_pod) / per_pod;
        Self {
            first: per_pod,
            per_pod,
            blocks: pods.min(room),
        }
    }

    /// The first block that has no ID in common with any that is taken.
    #[must_use]
    pub fn allocate(&self, taken: &[IdMapping]) -> Option<IdMapping> {
        (0..self.blocks)
            .filter_map(|block| {
                let offset = block.checked_mul(self.per_pod)?;
                Some(IdMapping {
                    host_id: self.first.checked_add(offset)?,
                    container_id: 0,
                    length: self.per_pod,
                })
            })
            .find(|candidate| !taken.iter().any(|other| candidate.overlaps(*other)))
    }
}

/// First ID and count of what the file sets aside for us.
fn subordinate(file: &'static str, text: &str) -> Result<Option<(u32, u32)>, IdRangeError> {
    let malformed = |line: &str| IdRangeError::Malformed {
        file,
        line: line.to_owned(),
    };
    let mut range = None;
    for line in text.lines().map(str::trim) {
        let Some(numbers) = line
            .strip_prefix(OWNER)
            .and_then(|rest| rest.strip_prefix(':'))
        else {
            continue;
        };
        let (first, count) = numbers.split_once(':').ok_or_else(|| malformed(line))?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| malformed(line));
        if range.replace((number(first)?, number(count)?)).is_some() {
            return Err(IdRangeError::SeveralRanges { file });
        }
    }
    Ok(range)
}

// === the file that keeps a pod's block ===

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<IdMapping>,
    gid_mappings: Vec<IdMapping>,
}

/// A kept block that no pod may have.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    #[error("invalid user namespace mappings file")]
    Syntax(#[source] serde_json::Error),
    #[error("users and groups must have one mapping, and the same")]
    NotOne,
    #[error("the mapping must begin at the container's ID 0")]
    RootIsNotMapped,
    #[error("the mapping has IDs of the host's own users, or none")]
    HostIds,
}

/// The file's text.
#[must_use]
pub fn encode(mapping: IdMapping) -> String {
    let IdMapping {
        host_id,
        container_id,
        length,
    } = mapping;
    let list =
        [serde_json::json!({"hostId": host_id, "containerId": container_id, "length": length})];
    serde_json::json!({"uidMappings": list, "gidMappings": list}).to_string()
}

/// What a file's text says; a block that is out of the range in force now is
/// still the one that the pod's files and processes go by.
///
/// # Errors
/// If that is no block a pod can have been given.
pub fn decode(text: &str) -> Result<IdMapping, MappingError> {
    let mappings: Mappings = serde_json::from_str(text).map_err(MappingError::Syntax)?;
    let ([users], [groups]) = (
        mappings.uid_mappings.as_slice(),
        mappings.gid_mappings.as_slice(),
    ) else {
        return Err(MappingError::NotOne);
    };
    if users != groups {
        return Err(MappingError::NotOne);
    }
    if users.container_id != 0 {
        return Err(MappingError::RootIsNotMapped);
    }
    let end = users.host_id.checked_add(users.length);
    if users.host_id < UNIT || users.length == 0 || end.is_none() {
        return Err(MappingError::HostIds);
    }
    Ok(*users)
}
