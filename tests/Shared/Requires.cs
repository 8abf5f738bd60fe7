using Fleet.Linux;
using Fleet.Linux.Tracing;
using Fleet.Linux.Userfaultfd;

namespace Fleet.Tests.Shared;

/// <summary>Skips a test, with the reason, where the machine lacks something; with FLEET_REQUIRE_ALL=1 the lack is a failure.</summary>
internal static class Requires
{
    public static void Userfaultfd() => Check(MissingUserfaultfd());

    public static void Kvm()
    {
        Userfaultfd();
        Check(System.IO.File.Exists("/dev/kvm") ? null : "/dev/kvm is missing: load kvm-intel or kvm-amd, or enable nested virtualisation");
    }

    public static void Root() => Check(Environment.IsPrivilegedProcess ? null : "it needs root");

    public static void Gcc() => Check(System.IO.File.Exists("/usr/bin/gcc") ? null : "gcc is missing (Debian package gcc)");

    public static void File(string path, string remedy) => Check(System.IO.File.Exists(path) ? null : $"{path} is missing: {remedy}");

    public static void Qemu()
    {
        Userfaultfd();
        Check(System.IO.File.Exists("/usr/bin/qemu-system-x86_64") ? null : "qemu-system-x86_64 is missing (Debian package qemu-system-x86)");
    }

    /// <param name="missing">What the kernel lacks; null when it is there.</param>
    public static void Kernel(string? missing) => Check(missing is null ? null : $"this kernel cannot do it: {missing}");

    /// <returns>For the caller to dispose.</returns>
    public static TraceFs TraceFs(params TraceEvent[] events)
    {
        TraceFs? fs = null;
        try
        {
            fs = Linux.Tracing.TraceFs.Open();
        }
        catch (LinuxException exception)
        {
            Kernel($"tracefs: {exception.Message}");
        }

        Kernel(Array.Find(events, wanted => !fs!.HasEvent(wanted)) is { } missing ? $"the tracepoint {missing}" : null);
        return fs!;
    }

    private static string? MissingUserfaultfd()
    {
        try
        {
            return UserfaultfdHandle.Probe().HasFlag(UffdFeatures.Poison) ? null : "this kernel has no UFFDIO_POISON (Linux 6.6)";
        }
        catch (LinuxException exception)
        {
            return $"{exception.Message}: run as root, or set the sysctl vm.unprivileged_userfaultfd=1";
        }
    }

    private static void Check(string? missing)
    {
        if (missing is null)
        {
            return;
        }

        if (Environment.GetEnvironmentVariable("FLEET_REQUIRE_ALL") == "1")
        {
            Assert.Fail($"FLEET_REQUIRE_ALL=1 and {missing}");
        }

        Assert.Skip(missing);
    }
}
