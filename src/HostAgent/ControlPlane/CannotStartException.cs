namespace Fleet.HostAgent.ControlPlane;

/// <summary>A setting is missing without which the control plane can never be asked anything: the agent stops, and only a person can help.</summary>
public sealed class CannotStartException(string message) : Exception(message);
