using Fleet.Contracts.Agents;
using Fleet.Contracts.Faults;
using Fleet.HostAgent.Spool;
using Fleet.Linux.Hardware;

namespace Fleet.HostAgent.Detect;

/// <summary>Reports what EDAC's counters of corrected errors grew by, for each module: a module that gets worse shows here first.</summary>
public sealed class CorrectedErrors(HardwareRoots roots, MemoryModules modules, HostFaults faults, ReportSpool spool, TimeProvider time)
{
    private DateTimeOffset? _last;

    /// <returns>False when the spool is full: it is tried again.</returns>
    /// <exception cref="IOException">The disk is full or failing.</exception>
    public bool TryReport()
    {
        var now = time.GetUtcNow();
        var counters = new Dictionary<string, long>(StringComparer.Ordinal);
        var reports = new List<AgentReport>();
        foreach (var module in EdacModules.Read(roots.Edac))
        {
            counters[module.Id] = module.Corrected;
            Add(reports, module.Id, module.Corrected, () => modules.Identify(module), now);
        }

        foreach (var (controller, count) in EdacModules.ReadUnlocated(roots.Edac))
        {
            counters[controller] = count;
            Add(reports, controller, count, () => null, now);
        }

        if (counters.Count == 0)
        {
            return true;
        }

        if (reports.Count > 0 && !spool.TryAppend(reports))
        {
            return false;
        }

        faults.ToldCorrected(counters);
        _last = now;
        return true;
    }

    private void Add(List<AgentReport> reports, string counter, long count, Func<DimmIdentity?> identify, DateTimeOffset now)
    {
        if (faults.NewCorrected(counter, count) is > 0 and var grown)
        {
            reports.Add(new AgentReport(
                0, AgentReport.Fault, null, 0, 0, null, null, null, null, _last ?? now, now, grown, null, null, null, null,
                MemoryFault: new MemoryFault(FaultKinds.Corrected, identify(), null)));
        }
    }
}
