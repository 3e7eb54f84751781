# The batch script of a job: it runs an SSH server of this user, by which clients enter the job, and the servers that they
# ask for as its own children: what an SSH session or a step starts ends with it, and is not in the batch script's group of
# processes. The job ends with the last server, so that an idle end frees the GPU.
# Needs trusted.sh, slurm.sh and sshd.sh. It goes to sbatch on standard input, after a line with the interpreter.
# Values: ROOT (the remote directory, which the nodes share), UNUSED_SECONDS (how long the job goes on without a server and
# without a client), SUCCESSOR_SECONDS (how long it goes on for a client in it that has ended the last server: the client
# may be about to start another one).
# In ROOT/jobs/CLUSTER-ID stand: `entrance` (user, node, port and host key) or `failed` (why there is none),
# `authorized_keys`, `pid` (this script's), NAME.start (a server to start: assignments of RUN and LOG, and `set --` with
# its command), then NAME.pid and NAME.ended.
# shellcheck shell=sh disable=SC1090,SC2034,SC2154,SC2317
set -u
umask 077
# A site may start jobs without an environment.
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH
# Clusters that share a home number their jobs alike.
CLUSTER=${SLURM_CLUSTER_NAME-}
[ -n "$CLUSTER" ] || name_cluster
JOB=$ROOT/jobs/$CLUSTER-$SLURM_JOB_ID
make_directories "$ROOT" "$ROOT/jobs" "$JOB" "$ROOT/log"
cd / || exit 73

# put NAME TEXT: write a file of the job's folder at once, as another host may be reading it.
put() { printf '%s\n' "$2" >"$JOB/$1.part" && mv "$JOB/$1.part" "$JOB/$1"; }

# fail SENTENCE: say why nobody can enter, for the client that waits, and end.
fail() {
  put failed "$1"
  exit 1
}

sshd_pid=
# NAME:NUMBER of each server, where the number is that of the process that waits for it.
servers=
runs=
asked_to_end=

# Slurm signals all processes of a job, and again when it is cancelled once more: the server's end is only waited for.
end_servers() {
  asked_to_end=1
  for server in $servers; do
    [ -f "$JOB/${server%:*}.ended" ] || kill -TERM "$(cat "$JOB/${server%:*}.pid" 2>/dev/null)" 2>/dev/null
  done
}

# leave: remove what only this job needs; what does so must not be ended by the signal that ends the job.
leave() {
  trap '' TERM
  [ -z "$sshd_pid" ] || kill "$sshd_pid" 2>/dev/null
  for run in $runs; do case $run in */"j$SLURM_JOB_ID"/*) rm -rf "${run%/*}" ;; esac done
  [ -f "$JOB/failed" ] || rm -rf "$JOB"
}

trap end_servers TERM
trap : USR1 USR2
trap leave EXIT
put pid $$

# Sessions of an ended job are taken up by the next one, maybe on another node: only a lock keeps two servers off one.
if command -v flock >/dev/null 2>&1; then
  (exec 8>"$JOB/trial" && flock -n 8) 2>/dev/null || fail "files in $ROOT can't be locked on $(uname -n) (flock)"
fi

user=$(id -un)
# Without an sshd, clients enter by a step: port 0 tells them so.
sshd=$(find_sshd) || sshd=
DLS_JOB=$JOB
: >>"$JOB/authorized_keys"
if [ -n "$sshd" ]; then
  if ! ssh-keygen -q -t ed25519 -N '' -C dls -f "$JOB/host_key" </dev/null >/dev/null 2>&1; then
    sshd=
  elif ! write_sshd_config "$sshd" "$JOB" INFO; then
    echo "the sshd of $(uname -n) can't be used: $(head -n 1 "$JOB/sshd.log")"
    sshd=
  fi
fi

# listen PORT: start the SSH server there; false where the port is taken.
listen() {
  : >"$JOB/sshd.log"
  "$sshd" -D -e -p "$1" -f "$JOB/sshd_config" 2>"$JOB/sshd.log" </dev/null >/dev/null &
  sshd_pid=$!
  until grep -q 'Server listening' "$JOB/sshd.log"; do
    kill -0 "$sshd_pid" 2>/dev/null || return 1
    sleep 0.02 2>/dev/null || sleep 1
  done
  # It goes on where only one of IPv4 and IPv6 is free; the other one is somebody else's then.
  if grep -q 'Bind to port' "$JOB/sshd.log"; then
    kill "$sshd_pid"
    return 1
  fi
}

port=0
tries=0
while [ -n "$sshd" ] && [ "$port" = 0 ]; do
  tried=$((20000 + (SLURM_JOB_ID * 31 + $$ * 7919 + tries * 4099) % 40000))
  tries=$((tries + 1))
  if listen "$tried"; then
    port=$tried
  elif [ "$tries" -ge 20 ]; then
    echo "sshd does not start on $(uname -n): $(tail -n 1 "$JOB/sshd.log")"
    sshd=
    sshd_pid=
  fi
done
put entrance "$user ${SLURMD_NODENAME:-$(uname -n)} $(uname -n) $port $(cut -d ' ' -f 1,2 "$JOB/host_key.pub" 2>/dev/null)"

# run_server NAME: run a server to its end, and tell the script of it. It runs as a process of its own, which gets the
# signals that all processes of the job get, and has to outlive the server.
run_server() {
  trap : TERM USR1 USR2
  name=$1
  RUN=
  LOG=/dev/null
  . "$JOB/$name.taken"
  "$@" >>"$LOG" 2>&1 </dev/null &
  server=$!
  put "$name.pid" "$server"
  # A signal ends the wait.
  while kill -0 "$server" 2>/dev/null; do
    wait "$server" || [ $? -ne 127 ] || break
  done
  trap '' TERM
  if [ -f "$RUN/ended.json" ]; then put "$name.ended" purpose; else put "$name.ended" crash; fi
  kill -USR2 $$
}

# is_there NAME NUMBER: whether a server, or the process that waits for it, is there.
is_there() { kill -0 "$2" 2>/dev/null || kill -0 "$(cat "$JOB/$1.pid" 2>/dev/null)" 2>/dev/null; }

# is_used: whether a client is in the job.
is_used() {
  if [ -n "$sshd_pid" ] && grep -q -s "^PPid:[[:space:]]*$sshd_pid\$" /proc/[0-9]*/status; then return 0; fi
  [ -n "$(find "$JOB/used" -mmin -2 2>/dev/null)" ]
}

unused_since=$(date +%s)
while :; do
  for start in "$JOB"/*.start; do
    if [ ! -f "$start" ] || [ -n "$asked_to_end" ]; then continue; fi
    name=${start##*/}
    name=${name%.start}
    mv "$start" "$JOB/$name.taken"
    runs="$runs $(sed -n "s/^RUN='\(.*\)'\$/\1/p" "$JOB/$name.taken")"
    run_server "$name" &
    servers="$servers $name:$!"
  done
  is_running=
  how=
  pause=5
  for server in $servers; do
    name=${server%:*}
    if [ -f "$JOB/$name.ended" ]; then
      how=$(cat "$JOB/$name.ended")
    elif is_there "$name" "${server##*:}"; then
      is_running=1
    fi
  done
  now=$(date +%s)
  if [ -n "$is_running" ]; then
    unused_since=$now
  elif [ -n "$asked_to_end" ]; then
    exit 0
  elif [ "$how" = purpose ]; then
    if ! is_used || [ $((now - unused_since)) -ge "$SUCCESSOR_SECONDS" ]; then exit 0; fi
    pause=1
  elif is_used; then
    unused_since=$now
  elif [ $((now - unused_since)) -ge "$UNUSED_SECONDS" ]; then
    exit 0
  fi
  # A signal ends the wait: a server is to be started, has ended, or is to end.
  sleep "$pause" &
  wait $!
done
