# shellcheck shell=bash
# Pods as the running agent sees them: `kubelet explain --output json` of every pod
# that has a log directory, as rows and as a table. Sourced after hack/cluster/lib.sh,
# never run; C_ variables name the node that is asked.

# agent_explain ARG…: asked by the very binary that runs.
agent_explain() {
	local pid
	pid=$(daemon_pid kubelet) || die "the agent does not run (its log: $C_DIR/log/kubelet.log)"
	timeout 10 "/proc/$pid/exe" explain --root-dir "$C_KUBELET_ROOT" "$@"
}

# pods_json: all pods' explanations, an array.
pods_json() {
	local dir rest
	for dir in "$C_DIR"/pod-logs/*_*_*/; do
		# NAMESPACE_NAME_UID; a pod that has gone meanwhile has no explanation.
		dir=${dir%/} rest=${dir##*/}
		rest=${rest%_*}
		agent_explain --output json "${rest%%_*}/${rest#*_}" 2>/dev/null || true
	done | jq --slurp 'add // [] | unique_by(.uid)'
}

# Lists in an explanation have the newest instance first; what a container waits for,
# if anything, is among the plan's waits.
PODS_TO_ROWS='
def age: sub("\\.[0-9]+"; "") | now - fromdateiso8601 | floor | if . < 0 then 0 else . end
	| if . < 60 then "\(.)s" elif . < 3600 then "\(. / 60 | floor)m\(. % 60)s" else "\(. / 3600 | floor)h\(. / 60 % 60 | floor)m" end;
def newest: reduce .[] as $one ([]; if any(.[]; .name == $one.name) then . else . + [$one] end);
def state: if type == "string" then . elif .Running then "Running" else .Exited | "\(.reason) (\(.code))" end;
def since: if type == "string" then null else .Running.started_at // .Exited.finished_at end;
sort_by(.name.namespace, .name.name)[]
| . as $pod
| (.observed.sandboxes[0] // {}) as $sandbox
| (.observed.containers | newest | sort_by(.created_at)) as $containers
| (if $containers == [] then [{ name: "-", attempt: 0, state: ((.running.step // "" | if . == "" then null else sub(" .*"; "") end) // .plan.waits[0].why // "Pending") }] else $containers end)[]
| . as $container
| any($pod.plan.waits[]; (.on | type == "object") and .on.CrashBackoff.container == $container.name) as $backs_off
| [ $pod.name.namespace, $pod.name.name, .name,
    ((.state | state) + if $backs_off then ", CrashLoopBackOff" else "" end),
    .attempt,
    ($sandbox.ips[0] // if $sandbox.host_network then "host" else "-" end),
    ((.state | since) // $sandbox.created_at // $pod.at | age) ]
| @tsv'

# pods_rows: a line for each container, of tab-separated namespace, pod, container,
# state, restarts, IP and age of the state.
pods_rows() { pods_json | jq --raw-output "$PODS_TO_ROWS"; }

# pods_table ROWS: for people.
pods_table() {
	local format='%-12s %-28s %-12s %-30s %8s  %-15s %6s\n' namespace pod container state restarts ip age
	# shellcheck disable=SC2059
	printf "$format" NAMESPACE POD CONTAINER STATE RESTARTS IP AGE
	while IFS=$'\t' read -r namespace pod container state restarts ip age; do
		[[ -n $namespace ]] || continue
		# shellcheck disable=SC2059
		printf "$format" "$namespace" "$pod" "$container" "$state" "$restarts" "$ip" "$age"
	done <<<"$1"
}
