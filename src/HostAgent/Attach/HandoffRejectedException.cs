namespace Fleet.HostAgent.Attach;

/// <summary>Why a handoff was refused; sent to the VMM as it is.</summary>
public sealed class HandoffRejectedException(string code, string reason) : Exception(reason)
{
    /// <summary>Stable, for programs.</summary>
    public string Code { get; } = code;
}
