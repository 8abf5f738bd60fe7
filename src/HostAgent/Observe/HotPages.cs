using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux.Tracing;

namespace Fleet.HostAgent.Observe;

/// <summary>
/// Pages that a guest hammers. Their accesses would push those to other pages out of the buffer: for a while they go to an instance of their own,
/// whose text nobody reads and whose count the kernel keeps.
/// </summary>
internal sealed class HotPages : IDisposable
{
    private const int MostAWindow = 500;
    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Window = TimeSpan.FromMilliseconds(250);

    private readonly TraceInstance _instance;
    private readonly TimeProvider _time;
    private readonly Dictionary<(Attachment Vmm, long Frame), long> _since = [];
    private readonly Dictionary<(Attachment Vmm, long Frame), int> _counts = [];
    private long _window;
    private (string? Kvm, string? User) _filters;

    public HotPages(TraceInstance instance, TimeProvider time)
    {
        (_instance, _time, _window) = (instance, time, time.GetTimestamp());
        // As small as the kernel makes it: overwriting costs nothing and is counted.
        _instance.SetBufferSize(4);
    }

    /// <summary>Accesses that were only counted, of all of them. One to the same guest frame of another VM is among them.</summary>
    public long Counted => _instance.Count().Recorded;

    public FrameSet Of(Attachment vmm) => FrameSet.Of(_since.Keys.Where(page => page.Vmm == vmm).Select(page => new FrameRange(page.Frame, page.Frame + 1)));

    /// <returns>Whether the page is hot from now on.</returns>
    public bool Count(Attachment vmm, long frame)
    {
        if (_time.GetElapsedTime(_window) >= Window)
        {
            _counts.Clear();
            _window = _time.GetTimestamp();
        }

        var count = _counts[(vmm, frame)] = _counts.GetValueOrDefault((vmm, frame)) + 1;
        return count >= MostAWindow && _since.TryAdd((vmm, frame), _time.GetTimestamp());
    }

    /// <returns>Whether some have rested and are to be observed again.</returns>
    public bool Cool()
    {
        var rested = _since.Where(page => _time.GetElapsedTime(page.Value) >= Rest).Select(page => page.Key).ToList();
        rested.ForEach(page => _since.Remove(page));
        return rested.Count > 0;
    }

    public void Watch(TraceFs fs, IReadOnlyCollection<ObservedVmm> vmms)
    {
        foreach (var gone in _since.Keys.Where(page => vmms.All(vmm => vmm.Attachment != page.Vmm)).ToList())
        {
            _since.Remove(gone);
        }

        var hot = vmms.Select(vmm => (Vmm: vmm, Others: vmm.Frames.Except(Of(vmm.Attachment)))).ToList();
        _filters.Kvm = Apply(fs, KvmPageFaultEvent.Name, TraceFilter.Of(KvmPageFaultEvent.AddressField, hot.SelectMany(item => item.Vmm.GuestRanges(item.Others))).Text, _filters.Kvm);
        _filters.User = Apply(fs, UserPageFaultEvent.Name, TraceFilter.Of(UserPageFaultEvent.AddressField, hot.SelectMany(item => item.Vmm.HostRanges(item.Others))).Text, _filters.User);
    }

    public void Dispose() => _instance.Dispose();

    private string? Apply(TraceFs fs, TraceEvent traceEvent, string? filter, string? present)
    {
        if (filter == present || !fs.HasEvent(traceEvent))
        {
            return present;
        }

        if (filter is null)
        {
            _instance.Disable(traceEvent);
        }
        else
        {
            _instance.Enable(traceEvent, filter);
        }

        return filter;
    }
}
