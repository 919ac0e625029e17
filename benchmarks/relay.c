/* The floor: what a request through any proxy costs of this machine, with the least that a proxy can do.

   relay PORT BACKEND-PORT ...

   Two reads and two writes a request, epoll's edges, connections kept alive on both sides, backends in turn. What comes
   of a client is taken for a request and goes to a backend, what comes of the backend is its answer: nothing is looked
   at, nothing is counted, nothing is tried again. So it is right only for messages that come in one read. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKENDS = 1024, EVENTS = 256, ROOM = 81920, BACKLOG = 1024 };

struct side {
    int fd;
    int backend;        /* its number; -1: a client */
    struct side *peer;  /* whose request, or answer, is under way */
    struct side *below; /* in the stack of its backend's idle connections */
};

static int set, backends, turn;
static in_port_t ports[BACKENDS];
static struct side *idle[BACKENDS];

static struct sockaddr_in loopback(in_port_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static struct side *watch(int fd, int backend)
{
    struct side *side = calloc(1, sizeof *side);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = side};
    int yes = 1;

    if (side == NULL)
        err(1, "memory");
    side->fd = fd;
    side->backend = backend;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0)
        err(1, "epoll_ctl");
    return side;
}

static struct side *connected(void)
{
    int backend = turn;
    struct side *side = idle[backend];
    struct sockaddr_in address = loopback(ports[backend]);
    int fd;

    turn = (turn + 1) % backends;
    if (side != NULL) {
        idle[backend] = side->below;
        return side;
    }
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof address) < 0)
        err(1, "a backend");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return watch(fd, backend);
}

static void give_back(struct side *side)
{
    side->below = idle[side->backend];
    idle[side->backend] = side;
}

/* A backend that ends its connection ends the relay: origins of a benchmark do not. */
static void ended(struct side *side)
{
    if (side->backend >= 0)
        errx(1, "a backend has closed a connection");
    if (side->peer != NULL)
        side->peer->peer = NULL;
    close(side->fd);
    free(side);
}

static void come(struct side *side)
{
    static char room[ROOM];
    ssize_t size = recv(side->fd, room, sizeof room, 0);
    struct side *peer = side->peer;

    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) {
        ended(side);
        return;
    }
    if (side->backend < 0 && peer == NULL) {
        side->peer = peer = connected();
        peer->peer = side;
    } else if (side->backend >= 0) {
        side->peer = NULL;
        give_back(side);
        if (peer != NULL)
            peer->peer = NULL;
    }
    if (peer != NULL)
        send(peer->fd, room, size, MSG_NOSIGNAL);
}

int main(int count, char **arguments)
{
    struct epoll_event events[EVENTS], accepts = {.events = EPOLLIN, .data.ptr = NULL};
    struct sockaddr_in address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1, found, fd;

    backends = count - 2;
    if (backends < 1 || backends > BACKENDS)
        errx(2, "usage: relay PORT BACKEND-PORT ...");
    for (int i = 0; i < backends; i++)
        ports[i] = htons(atoi(arguments[i + 2]));
    address = loopback(htons(atoi(arguments[1])));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *) &address, sizeof address) < 0 || listen(listener, BACKLOG) < 0)
        err(1, "port %s", arguments[1]);
    set = epoll_create1(0);
    if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, listener, &accepts) < 0)
        err(1, "epoll");
    while (true) {
        found = epoll_wait(set, events, EVENTS, -1);
        for (int i = 0; i < found; i++) {
            if (events[i].data.ptr != NULL)
                come(events[i].data.ptr);
            else if ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
                watch(fd, -1);
        }
    }
}
