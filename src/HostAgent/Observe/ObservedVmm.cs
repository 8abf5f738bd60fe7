using Fleet.Contracts;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Observe;

/// <summary>A VMM whose armed pages are observed, and which threads are its own.</summary>
public sealed class ObservedVmm(Attachment attachment)
{
    private HashSet<int> _threads = [];

    public Attachment Attachment { get; } = attachment;

    /// <summary>Armed, or about to be.</summary>
    public FrameSet Frames { get; set; } = FrameSet.Empty;

    public IEnumerable<AddressRange> GuestRanges(FrameSet without) =>
        Frames.Except(without).Ranges.Select(range => new AddressRange(FrameMath.AddressOf(range.Start), FrameMath.AddressOf(range.End)));

    public IEnumerable<AddressRange> HostRanges(FrameSet without) =>
        Frames.Except(without).Ranges.SelectMany(Attachment.Layout.Locate)
            .Select(part => new AddressRange(part.HostVirtualAddress, part.HostVirtualAddress + (ulong)part.Bytes));

    /// <summary>
    /// Whether the thread is the VMM's. Threads that were seen once stay known: one that ended over its access still belongs to it.
    /// </summary>
    public bool Owns(int thread) => _threads.Contains(thread);

    /// <summary>Takes in the threads that there are; those that ended are kept until the next time.</summary>
    public void LookAtThreads()
    {
        var now = ThreadGroups.Threads(Attachment.Vmm.Pid);
        if (now.Count > 0)
        {
            _threads = [.. now];
        }
    }

    public void Add(int thread) => _threads.Add(thread);
}
