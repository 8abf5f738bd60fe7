namespace Fleet.Linux.Userfaultfd;

/// <summary>How far a range ioctl got. <paramref name="Error"/> is None exactly when all of the range was done.</summary>
/// <param name="Bytes">Bytes done from the start of the range.</param>
public readonly record struct UffdResult(ulong Bytes, Errno Error)
{
    public bool Succeeded => Error == Errno.None;
}
