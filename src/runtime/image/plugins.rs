//! The credentials that plugins know for an image, each asked as seldom as its
//! answers allow.
//!
//! One that fails is warned about and has no credentials to give: the pull goes
//! on with what others know, or anonymously.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use moka::Expiry;
use moka::future::Cache;

use super::plugin::{Answer, CacheKeyType, CredentialPlugin};
use crate::pod::credentials::{Keyring, applies};
use crate::pod::reference::ImageReference;
use crate::pod::spec::PullCredential;

/// Answers kept, of all plugins together.
const CAPACITY: u64 = 1000;

pub(super) struct Plugins {
    plugins: Vec<CredentialPlugin>,
    answers: Cache<Key, Arc<Answer>>,
}

/// Whose answer, and for what it is good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    plugin: usize,
    scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    Image(String),
    Registry(String),
    Global,
}

/// Every answer has an end of its own.
struct End;

impl Expiry<Key, Arc<Answer>> for End {
    fn expire_after_create(&self, _: &Key, answer: &Arc<Answer>, _: Instant) -> Option<Duration> {
        Some(answer.good_for)
    }
}

impl Plugins {
    pub(super) fn new(plugins: Vec<CredentialPlugin>) -> Self {
        Self {
            plugins,
            answers: Cache::builder()
                .max_capacity(CAPACITY)
                .expire_after(End)
                .build(),
        }
    }

    /// What all plugins together know; they are asked side by side.
    pub(super) async fn lookup(&self, image: &ImageReference) -> Vec<PullCredential> {
        let name = image.name();
        let asked = self
            .plugins
            .iter()
            .enumerate()
            .filter(|(_, plugin)| plugin.match_images.iter().any(|m| applies(m, &name)))
            .map(|(index, plugin)| self.ask(index, plugin, image));
        let answers = join_all(asked).await;
        let entries = answers.iter().flatten().flat_map(|answer| &answer.auths);
        Keyring::of_node(entries.map(|(place, auth)| (place.as_str(), auth.clone()))).lookup(image)
    }

    async fn ask(
        &self,
        index: usize,
        plugin: &CredentialPlugin,
        image: &ImageReference,
    ) -> Option<Arc<Answer>> {
        let key = |scope| Key {
            plugin: index,
            scope,
        };
        let wide = [Scope::Registry(image.registry.clone()), Scope::Global];
        for scope in wide {
            if let Some(answer) = self.answers.get(&key(scope)).await {
                return Some(answer);
            }
        }
        let name = image.name();
        // All who want the same wait for one run.
        let run = async { plugin.ask(&name).await.map(Arc::new) };
        let asked = self
            .answers
            .try_get_with(key(Scope::Image(name.clone())), run);
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(
                    plugin = %plugin.name,
                    image = %name,
                    error = %crate::error::chain(&*error),
                    "no registry credentials from the plugin"
                );
                return None;
            }
        };
        let scope = match answer.scope {
            CacheKeyType::Image => return Some(answer),
            CacheKeyType::Registry => Scope::Registry(image.registry.clone()),
            CacheKeyType::Global => Scope::Global,
        };
        self.answers.insert(key(scope), answer.clone()).await;
        Some(answer)
    }
}

#[cfg(test)]
mod tests;
