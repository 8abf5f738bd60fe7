// What a host of the lab offers to the machine around it: commands and Unix sockets over TCP.
//
//   labd PORT               serves. A connection sends one line:
//     run COMMAND           the output of `sh -c COMMAND`, then "\036exit CODE\n"
//     unix PATH             "ok\n", then what is sent goes to that Unix socket and back; or "no REASON\n"
//   labd relay PORT HOST HOSTPORT
//                           carries each connection to PORT on to HOST, as a tunnel between two hosts would. What listens on
//                           127.0.0.1 only is reached with it from the other host.
//
// A host of the lab has no other users, and its ports are reachable from the outer machine's loopback alone.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int say(int fd, const char *text) { return write(fd, text, strlen(text)) == (ssize_t)strlen(text); }

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = INADDR_ANY};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 64)) { perror("labd"); exit(1); }
  return fd;
}

static int connect_unix(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) { errno = ENAMETOOLONG; return -1; }
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return connect(fd, (struct sockaddr *)&address, sizeof address) ? -1 : fd;
}

static int connect_tcp(const char *host, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  inet_pton(AF_INET, host, &address.sin_addr);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return connect(fd, (struct sockaddr *)&address, sizeof address) ? -1 : fd;
}

static int write_all(int fd, const char *data, ssize_t bytes) {
  while (bytes > 0) {
    ssize_t n = write(fd, data, bytes);
    if (n <= 0) return 0;
    data += n, bytes -= n;
  }
  return 1;
}

// Each direction ends by itself, so that a half-closed stream arrives half-closed.
static void carry(int left, int right) {
  static char buffer[256 * 1024];
  struct pollfd ends[2] = {{.fd = left, .events = POLLIN}, {.fd = right, .events = POLLIN}};
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (poll(ends, 2, -1) < 0) return;
    for (int i = 0; i < 2; i++) {
      if (ends[i].fd < 0 || !ends[i].revents) continue;
      int to = i ? left : right;
      ssize_t n = read(ends[i].fd, buffer, sizeof buffer);
      if (n < 0 || (n > 0 && !write_all(to, buffer, n))) return;
      if (n == 0) shutdown(to, SHUT_WR), ends[i].fd = -1;
    }
  }
}

static void run(int client, const char *command) {
  int output[2], status = 0;
  static char buffer[64 * 1024];
  char end[32];
  if (pipe(output)) return;
  pid_t child = fork();
  if (child == 0) {
    setsid();
    dup2(open("/dev/null", 0), 0), dup2(output[1], 1), dup2(output[1], 2);
    close(output[0]), close(output[1]), close(client);
    signal(SIGPIPE, SIG_DFL), signal(SIGCHLD, SIG_DFL);
    execl("/bin/sh", "sh", "-c", command, (char *)0);
    _exit(127);
  }
  close(output[1]);
  for (ssize_t n; (n = read(output[0], buffer, sizeof buffer)) > 0 && write_all(client, buffer, n);) { }
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
  snprintf(end, sizeof end, "\036exit %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  say(client, end);
}

static void serve(int client) {
  static char line[64 * 1024];
  for (size_t length = 0;; length++) {
    if (length == sizeof line - 1 || read(client, line + length, 1) != 1) return;
    if (line[length] == '\n') { line[length] = 0; break; }
  }
  if (!strncmp(line, "run ", 4)) { run(client, line + 4); return; }
  if (!strncmp(line, "unix ", 5)) {
    int target = connect_unix(line + 5);
    if (target >= 0 && say(client, "ok\n")) { carry(client, target); return; }
    say(client, "no "), say(client, strerror(errno)), say(client, "\n");
  }
}

int main(int argc, char **argv) {
  int relay = argc == 5 && !strcmp(argv[1], "relay");
  if (!relay && argc != 2) { fputs("labd PORT | labd relay PORT HOST HOSTPORT\n", stderr); return 2; }
  int listener = listen_on(atoi(argv[relay ? 2 : 1])), on = 1;
  signal(SIGPIPE, SIG_IGN);
  for (;;) {
    int client = accept(listener, 0, 0);
    while (waitpid(-1, 0, WNOHANG) > 0) { }
    if (client < 0) continue;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fork() == 0) {
      close(listener);
      if (relay) {
        int target = connect_tcp(argv[3], atoi(argv[4]));
        if (target >= 0) carry(client, target);
      } else {
        serve(client);
      }
      _exit(0);
    }
    close(client);
  }
}
