namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Why a QEMU process could not be attached; it is left as it was, and tried again.</summary>
public sealed class QemuRejectedException(string code, string reason) : Exception(reason)
{
    /// <summary>Stable, for programs; it becomes the reason in the VM's status.</summary>
    public string Code { get; } = code;
}
