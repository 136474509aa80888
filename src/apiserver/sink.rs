//! Where the objects of a watch go that nobody here keeps: one call for each
//! object, so that what a change costs does not depend on how many there are.

use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;

/// Takes in all objects of one kind, one at a time, and keeps of each what it
/// needs.
pub trait ObjectSink<K>: Send {
    /// The object is there, and this is how it is now.
    fn apply(&mut self, object: &K);
    /// There is no such object, or none that concerns this sink.
    fn delete(&mut self, namespace: &str, name: &str);
    /// A list of everything begins; its objects follow through
    /// [`apply`](Self::apply). A list that breaks off is begun anew.
    fn begin_list(&mut self);
    /// The list is complete: what was not applied since it began is gone.
    fn end_list(&mut self);
}

/// Several sinks of the same objects, each served in turn.
pub type Sinks<K> = Vec<Box<dyn ObjectSink<K>>>;

impl<K, S: ObjectSink<K> + ?Sized> ObjectSink<K> for Box<S> {
    fn apply(&mut self, object: &K) {
        (**self).apply(object);
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        (**self).delete(namespace, name);
    }

    fn begin_list(&mut self) {
        (**self).begin_list();
    }

    fn end_list(&mut self) {
        (**self).end_list();
    }
}

impl<K, S: ObjectSink<K>> ObjectSink<K> for Vec<S> {
    fn apply(&mut self, object: &K) {
        self.iter_mut().for_each(|sink| sink.apply(object));
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        self.iter_mut()
            .for_each(|sink| sink.delete(namespace, name));
    }

    fn begin_list(&mut self) {
        self.iter_mut().for_each(ObjectSink::begin_list);
    }

    fn end_list(&mut self) {
        self.iter_mut().for_each(ObjectSink::end_list);
    }
}

/// Namespace and name; what is missing reads as empty.
pub(super) fn name_of(metadata: &ObjectMeta) -> (&str, &str) {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Hands one event of a watch on.
pub(super) fn deliver<K: kube::Resource>(event: Event<K>, sink: &mut impl ObjectSink<K>) {
    match event {
        Event::Init => sink.begin_list(),
        Event::InitApply(object) | Event::Apply(object) => sink.apply(&object),
        Event::InitDone => sink.end_list(),
        Event::Delete(object) => {
            let (namespace, name) = name_of(object.meta());
            sink.delete(namespace, name);
        }
    }
}
