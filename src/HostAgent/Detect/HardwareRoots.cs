using Fleet.Linux.Hardware;

namespace Fleet.HostAgent.Detect;

/// <summary>Where the host describes its memory modules.</summary>
/// <param name="Edac">EDAC's memory controllers.</param>
/// <param name="Dmi">The firmware's tables.</param>
public sealed record HardwareRoots(string Edac = EdacModules.DefaultFolder, string Dmi = SmbiosModules.DefaultFolder);
