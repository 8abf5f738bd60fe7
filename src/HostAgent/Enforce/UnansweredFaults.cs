using Fleet.Linux;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Enforce;

/// <summary>
/// Pages whose first access could not be answered: the VMM's memory limit, or its file system, is full. The threads wait, and their events do
/// not come again; at the next look they are woken to fault once more.
/// </summary>
public sealed class UnansweredFaults
{
    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, ulong> _pages = [];

    public bool Any
    {
        get
        {
            lock (_lock)
            {
                return _pages.Count > 0;
            }
        }
    }

    public void Add(ulong address, ulong bytes)
    {
        lock (_lock)
        {
            _pages[address] = bytes;
        }
    }

    public void Wake(UserfaultfdHandle userfaultfd)
    {
        KeyValuePair<ulong, ulong>[] pages;
        lock (_lock)
        {
            pages = [.. _pages];
            _pages.Clear();
        }

        foreach (var (address, bytes) in pages)
        {
            try
            {
                userfaultfd.Wake(address, bytes);
            }
            catch (LinuxException)
            {
                // It is registered no more: then nobody waits there either.
            }
        }
    }
}
