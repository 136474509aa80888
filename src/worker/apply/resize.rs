//! New resources for running containers, and for their pod's cgroup.

use super::{Target, told};
use crate::pod::cgroup::PodCgroup;
use crate::pod::containers::find;
use crate::pod::plan::ContainerUpdate;
use crate::pod::resize::CgroupAim;
use crate::pod::{ContainerId, qos, render, resize};
use crate::worker::step::Outcome;

impl Target {
    /// The pod's cgroup is widened first, then the containers change, then the
    /// cgroup gets its final values: no limit is ever tighter than what it holds.
    pub(super) async fn resize(
        &self,
        updates: Vec<ContainerUpdate>,
        from: Option<PodCgroup>,
        aim: CgroupAim,
    ) -> Outcome {
        let mut done = Vec::new();
        let result = self.resize_all(updates, from, aim, &mut done).await;
        if let Err(error) = &result {
            let detail = resize::event_detail(&self.desired.pod, Some(error));
            self.warn("ResizeError", format!("Pod resize error: {detail}"));
        }
        Outcome::Resized { done, aim, result }
    }

    async fn resize_all(
        &self,
        updates: Vec<ContainerUpdate>,
        from: Option<PodCgroup>,
        aim: CgroupAim,
        done: &mut Vec<ContainerId>,
    ) -> Result<(), String> {
        let cgroups = &self.deps.cgroups;
        let to = qos::pod_cgroup(&self.desired, &self.deps.node);
        if let Some(to) = &to {
            self.check_memory(to).await?;
            let wide = from.map_or_else(|| to.clone(), |from| resize::envelope(&from, to));
            told(cgroups.ensure(&wide).await)?;
        }
        for update in updates {
            let Some(container) = find(&self.desired.pod, &update.name) else {
                continue;
            };
            let new = render::resources_update(&self.desired, &container, &self.deps.node);
            let update_call = self.deps.sandboxes.update_container(&update.id, &new);
            told(update_call.await)?;
            done.push(update.id);
        }
        match (&to, aim) {
            (Some(to), CgroupAim::New) => told(cgroups.ensure(to).await),
            (None, _) | (_, CgroupAim::Both) => Ok(()),
        }
    }

    /// A limit below what is in use would have the kernel kill somebody.
    async fn check_memory(&self, to: &PodCgroup) -> Result<(), String> {
        let Some(limit) = to.memory_limit else {
            return Ok(());
        };
        let used = told(self.deps.cgroups.memory_in_use(to).await)?;
        if used > limit {
            return Err(format!(
                "attempting to set pod memory limit ({limit}) below current usage ({used})"
            ));
        }
        Ok(())
    }
}
