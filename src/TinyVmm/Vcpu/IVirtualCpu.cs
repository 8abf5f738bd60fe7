using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Vcpu;

public enum VirtualCpuState
{
    Running,

    /// <summary>Verified: the vCPU's thread is outside of the guest and stays there.</summary>
    Paused,

    /// <summary>Stopped for good, without an answer: better than going on after an access that nobody trapped.</summary>
    Failed,
}

/// <summary>Something that runs the guest's program.</summary>
public interface IVirtualCpu
{
    /// <summary>What it is made of, <c>kvm</c> or <c>software</c>.</summary>
    string Kind { get; }

    VirtualCpuState State { get; }

    /// <summary>Why it failed, for a person; null unless it has.</summary>
    string? Failure { get; }

    /// <summary>Machine checks injected so far.</summary>
    long MachineChecks { get; }

    /// <summary>
    /// Has the guest carry out a command. The task ends when the guest has answered, which may be never: a vCPU can be blocked
    /// on a trapped page. One command at a time; it must lie in guest RAM and be aligned to 4 bytes.
    /// </summary>
    Task<GuestOutcome> ExecuteAsync(GuestCommand command);

    /// <summary>Ends when the vCPU is verifiably out of the guest, or has failed. The request stands until <see cref="Resume"/>.</summary>
    Task PauseAsync();

    void Resume();

    /// <summary>The state of a paused vCPU, for another one of the same kind; null when its guest waits for a command.</summary>
    /// <exception cref="InvalidOperationException">It is not paused.</exception>
    CarriedCommand? Save();

    /// <summary>Takes up the state of another vCPU; only while paused, and before the guest ever ran.</summary>
    /// <returns>Ends when the guest has answered the command that was under way.</returns>
    Task<GuestOutcome> Load(CarriedCommand carried);

    /// <summary>Waits until <see cref="State"/> may have changed by the vCPU's own doing; for one waiter.</summary>
    ValueTask WaitForChangeAsync(CancellationToken cancellationToken);

    /// <summary>Takes the vCPU out of the guest for good.</summary>
    /// <returns>Ends when its thread has ended; a vCPU blocked on a trapped page ends only with the process.</returns>
    Task StopAsync();
}
