/* notify.h: tells a service manager how far the daemon is. */
#ifndef STEERD_SERVER_NOTIFY_H
#define STEERD_SERVER_NOTIFY_H

/* Sends "READY=1" or "STOPPING=1" to the socket that NOTIFY_SOCKET names, as systemd's units of Type=notify ask for. Does nothing
 * where the variable is not set, and no harm where nobody listens. */
void notify_manager(const char *state);

/* How often at least the manager wants to hear "WATCHDOG=1", in milliseconds (half of WATCHDOG_USEC, as systemd advises); 0: never,
 * or it waits for another process (WATCHDOG_PID). */
int notify_watchdog_ms(void);

#endif
