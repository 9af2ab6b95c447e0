#!/bin/bash
# Whether the daemon of this container answers: status 0 or 1. In bash alone, so that the image needs no HTTP client.
# It asks the port of STEERD_LISTEN on loopback; a container that is told its address otherwise names its own check.
listen=${STEERD_LISTEN%%,*}
exec 3<>"/dev/tcp/127.0.0.1/${listen##*:}" || exit 1
printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 4 _ status _ <&3 && [ "$status" = 200 ]
