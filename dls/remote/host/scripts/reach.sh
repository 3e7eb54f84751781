# Become a relay between standard input and output and a port of another host. Prints $READY and its name first; prints
# nothing, and ends, where this host has no program for it.
# Values: READY is set by the caller; ADDRESS, PORT.
# shellcheck shell=sh disable=SC2016,SC2154
for relay in nc ncat socat python3 bash; do
  command -v "$relay" >/dev/null 2>&1 || continue
  printf '%s %s\n' "$READY" "$relay"
  case $relay in
    nc | ncat) exec "$relay" "$ADDRESS" "$PORT" ;;
    socat) exec socat - "TCP:$ADDRESS:$PORT" ;;
    bash) exec bash -c 'exec 3<>"/dev/tcp/$0/$1" && { cat <&3 & exec cat >&3; }' "$ADDRESS" "$PORT" ;;
    python3)
      exec python3 -c '
import os, socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
link.settimeout(None)
def copy_in():
    while True:
        data = os.read(0, 65536)
        if not data:
            break
        link.sendall(data)
    link.shutdown(socket.SHUT_WR)
thread = threading.Thread(target=copy_in)
thread.daemon = True
thread.start()
while True:
    data = link.recv(65536)
    if not data:
        break
    while data:
        data = data[os.write(1, data):]
' "$ADDRESS" "$PORT"
      ;;
  esac
done
