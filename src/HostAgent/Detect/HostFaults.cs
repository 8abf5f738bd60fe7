using Fleet.Contracts.Agents;
using Fleet.Contracts.Faults;

namespace Fleet.HostAgent.Detect;

/// <summary>An uncorrected error of this host's memory, as far as it is known: by its frame, by the page of a VM it hit, or both.</summary>
public sealed record HostFault(long? PhysicalFrame, FaultPage? Page);

/// <summary>One error is one report, whoever saw it first: the VMM by its SIGBUS, the kernel's event, or a look at the page tables.</summary>
public sealed class HostFaults(FaultJournal journal, MemoryModules modules, TimeProvider time)
{
    private readonly Lock _lock = new();

    /// <summary>Those that were not reported yet, each once.</summary>
    public IReadOnlyList<HostFault> New(IEnumerable<HostFault> faults)
    {
        lock (_lock)
        {
            var record = journal.Record;
            var (frames, pages) = (record.Frames.ToHashSet(), record.Pages.ToHashSet());
            var fresh = new List<HostFault>();
            foreach (var fault in faults)
            {
                // Both are taken, whichever of them is known: the other sight of the same error will name only one.
                var isNewFrame = fault.PhysicalFrame is { } frame && frames.Add(frame);
                var isNewPage = fault.Page is { } page && pages.Add(page);
                if (fault.PhysicalFrame is null ? isNewPage : isNewFrame && (fault.Page is null || isNewPage))
                {
                    fresh.Add(fault);
                }
            }

            return fresh;
        }
    }

    public AgentReport Report(HostFault fault)
    {
        var now = time.GetUtcNow();
        return new AgentReport(
            0, AgentReport.Fault, fault.Page?.Vm, fault.Page?.MemoryInstance ?? 0, fault.Page?.Frame ?? 0, null, null, null, null, now, now, 1,
            null, null, null, null, MemoryFault: new MemoryFault(FaultKinds.Uncorrected, modules.Of(fault.PhysicalFrame), fault.PhysicalFrame));
    }

    /// <summary>They are in the spool. What is known of them besides (a frame for a page that was reported without one) counts as reported too.</summary>
    public void Told(IEnumerable<HostFault> faults)
    {
        lock (_lock)
        {
            var record = journal.Record;
            var frames = record.Frames.Union(faults.Select(fault => fault.PhysicalFrame).OfType<long>()).ToList();
            var pages = record.Pages.Union(faults.Select(fault => fault.Page).OfType<FaultPage>()).ToList();
            if (frames.Count > record.Frames.Count || pages.Count > record.Pages.Count || journal.IsBehind)
            {
                journal.Save(record with { Frames = frames, Pages = pages });
            }
        }
    }

    /// <summary>Errors that EDAC counted for one counter since the last look; the first look of all only starts the count.</summary>
    /// <returns>0 when there is nothing new.</returns>
    public long NewCorrected(string counter, long count)
    {
        lock (_lock)
        {
            if (journal.Record.Corrected is not { } counters)
            {
                return 0;
            }

            var known = counters.GetValueOrDefault(counter);
            // A driver that was loaded anew counts from zero.
            return count >= known ? count - known : count;
        }
    }

    /// <summary>The counts up to these are in the spool.</summary>
    public void ToldCorrected(IReadOnlyDictionary<string, long> counters)
    {
        lock (_lock)
        {
            if (journal.IsBehind || journal.Record.Corrected is not { } known || counters.Any(counter => known.GetValueOrDefault(counter.Key, -1) != counter.Value))
            {
                journal.Save(journal.Record with { Corrected = new Dictionary<string, long>(counters) });
            }
        }
    }
}
