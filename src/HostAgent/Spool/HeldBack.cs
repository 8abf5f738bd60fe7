using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Spool;

/// <summary>
/// VMs whose events the spool does not take now: their VMMs keep them (the agent itself those of a QEMU), and nothing is lost. One line when the first is held back and one
/// when none is any more, however many guests hammer meanwhile.
/// </summary>
public sealed partial class HeldBack(ILogger<HeldBack> logger)
{
    private readonly Lock _lock = new();
    private int _vms;

    public int Vms => Volatile.Read(ref _vms);

    /// <param name="problem">Null when the spool is full.</param>
    public void Begin(string vm, Exception? problem)
    {
        lock (_lock)
        {
            if (_vms++ == 0)
            {
                LogHeld(vm, problem?.Message ?? "it is full until the control plane takes reports");
            }
        }
    }

    public void End()
    {
        lock (_lock)
        {
            if (--_vms == 0)
            {
                LogOver();
            }
        }
    }

    [LoggerMessage(1501, LogLevel.Error, "The spool takes no reports ({Problem}): the events of VM {Vm}, and of any other with something to report, are kept until there is room, by its VMM, or by the agent where that is QEMU; what is armed stays armed and verified")]
    private partial void LogHeld(string vm, string problem);

    [LoggerMessage(2231, LogLevel.Information, "The spool takes reports again; what was kept is handed over")]
    private partial void LogOver();
}
