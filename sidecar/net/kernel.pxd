# The system calls of the data path, as C declares them. Python.h has defined _GNU_SOURCE.
from libc.stdint cimport uint32_t

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLPRI, EPOLLRDHUP, EPOLLET
    enum: EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int size, int timeout)

cdef extern from "<time.h>":
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    enum: CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef extern from "<fcntl.h>":
    enum: SPLICE_F_MOVE, SPLICE_F_NONBLOCK, F_GETPIPE_SZ, F_SETPIPE_SZ, O_NONBLOCK, O_CLOEXEC
    ssize_t splice(int source, void* from_, int target, void* to, size_t size, unsigned int flags)
    int fcntl(int fd, int command, ...)

cdef extern from "<unistd.h>":
    int pipe2(int* ends, int flags)

cdef extern from "<netinet/tcp.h>":
    enum: TCP_NODELAY

cdef extern from "<netinet/in.h>":
    enum: IPPROTO_TCP
    ctypedef unsigned short in_port_t
    cdef struct sockaddr_in:
        unsigned short sin_family
        in_port_t sin_port
        int sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        in_port_t sin6_port
        int sin6_addr

cdef extern from "<sys/un.h>":
    cdef struct sockaddr_un:
        unsigned short sun_family
        char[108] sun_path

cdef extern from "<arpa/inet.h>":
    int inet_pton(int family, const char* text, void* address)
    in_port_t htons(in_port_t port)

cdef extern from "<sys/socket.h>":
    enum: AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_ERROR
    enum: MSG_NOSIGNAL, MSG_PEEK, SHUT_WR
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    int new_socket "socket"(int family, int kind, int protocol)
    int accept4(int fd, void* address, void* size, int flags)
    int connect(int fd, const sockaddr* address, socklen_t size)
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t send(int fd, const void* buffer, size_t size, int flags)
    int shutdown(int fd, int how)
    int getsockopt(int fd, int level, int option, void* value, socklen_t* size)
    int setsockopt(int fd, int level, int option, const void* value, socklen_t size)
