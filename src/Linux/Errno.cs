namespace Fleet.Linux;

/// <summary>Error numbers of the generic Linux ABI (&lt;asm-generic/errno-base.h&gt;, &lt;asm-generic/errno.h&gt;) that callers tell apart.</summary>
public enum Errno
{
    None = 0,
    EPERM = 1,
    ENOENT = 2,
    ESRCH = 3,
    EINTR = 4,
    EIO = 5,
    ENXIO = 6,
    E2BIG = 7,
    EBADF = 9,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    EBUSY = 16,
    EEXIST = 17,
    ENODEV = 19,
    EINVAL = 22,
    EMFILE = 24,
    ENOTTY = 25,
    ENOSPC = 28,
    EROFS = 30,
    EPIPE = 32,
    ENOSYS = 38,
    ENOTSUP = 95,
    ECONNRESET = 104,
    ENOTCONN = 107,
    ETIMEDOUT = 110,
    EHWPOISON = 133,
}
