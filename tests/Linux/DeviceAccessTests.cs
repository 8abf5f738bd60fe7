using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Tests.Shared;

namespace Fleet.Linux.Tests;

/// <summary>What /proc says of devices and processes that reach memory past a process's page tables.</summary>
public sealed class DeviceAccessTests
{
    // No machine of the tests has such a device: what their names are is in the kernel's drivers/vfio and drivers/vhost.
    [Theory]
    [InlineData("/dev/vfio/12", true)]
    [InlineData("/dev/vfio/noiommu-0", true)]
    [InlineData("/dev/vfio/devices/vfio0", true)]
    [InlineData("/dev/vhost-vdpa-0", true)]
    [InlineData("anon_inode:[vfio-device]", true)]
    [InlineData("/dev/vfio/vfio", false)]
    [InlineData("/dev/vhost-net", false)]
    [InlineData("/dev/vhost-vsock", false)]
    [InlineData("/dev/kvm", false)]
    [InlineData("anon_inode:kvm-vm", false)]
    [InlineData("/memfd:vfio (deleted)", false)]
    [InlineData(null, false)]
    public void DeviceOf_Link_IsADeviceWithAccessOfItsOwn(string? link, bool isDevice) =>
        Assert.Equal(isDevice ? link : null, ProcessPins.DeviceOf(link));

    [Fact]
    public async Task PinnedBytes_OfAProcessWithARegisteredBuffer_AreItsLength()
    {
        Assert.Equal(0, ProcessPins.PinnedBytes(Environment.ProcessId));
        using var helper = await CHelper.StartAsync(CHelper.PinsItsMemory, "65536");
        Requires.Kernel(helper.Line == "pinned" ? null : $"io_uring's registered buffers: {helper.Line}");

        Assert.Equal(65536, ProcessPins.PinnedBytes(helper.Pid));
        Assert.Null(ProcessPins.OpenDevice(helper.Pid));
    }

    [Fact]
    public async Task FindOther_IsTheProcessThatMapsTheFileAndNoOther()
    {
        using var file = MemoryFile.Create("fleet-test", 65536);
        using var another = MemoryFile.Create("fleet-test", 65536);
        using var mapping = MemoryMapping.MapShared(file.Descriptor, 0, 65536);
        HashSet<FileIdentity> files = [FileDescriptorInfo.Identity(file.Descriptor)];
        Assert.Null(MemoryFileUsers.FindOther(MemoryFileUsers.Scan(), files, Environment.ProcessId, Environment.ProcessId));
        using (var stranger = await CHelper.StartAsync(CHelper.MapsMemoryOf, $"{Environment.ProcessId}", $"{another.Descriptor.Number}", "65536"))
        {
            Assert.Equal("mapped", stranger.Line);
            Assert.Null(MemoryFileUsers.FindOther(MemoryFileUsers.Scan(), files, Environment.ProcessId, Environment.ProcessId));
        }

        using (var helper = await CHelper.StartAsync(CHelper.MapsMemoryOf, $"{Environment.ProcessId}", $"{file.Descriptor.Number}", "65536"))
        {
            Assert.Equal((helper.Pid, "helper"), MemoryFileUsers.FindOther(MemoryFileUsers.Scan(), files, Environment.ProcessId, Environment.ProcessId));
            Assert.Equal(Environment.ProcessId, MemoryFileUsers.FindOther(MemoryFileUsers.Scan(), files, helper.Pid, helper.Pid)?.Pid);
        }

        Assert.Null(MemoryFileUsers.FindOther(MemoryFileUsers.Scan(), files, Environment.ProcessId, Environment.ProcessId));
    }

    /// <summary>A vfork child, until it becomes another program, shows the mappings of its parent: it has the same page tables.</summary>
    [Fact]
    public async Task FindOther_ProcessesThatShareTheMemory_AreNoOthers()
    {
        using var file = MemoryFile.Create("fleet-test", 4096);
        HashSet<FileIdentity> files = [FileDescriptorInfo.Identity(file.Descriptor)];
        const string Source = """
            #define _GNU_SOURCE
            #include <fcntl.h>
            #include <sched.h>
            #include <signal.h>
            #include <stdio.h>
            #include <stdlib.h>
            #include <sys/mman.h>
            #include <sys/wait.h>
            #include <unistd.h>
            static char stack[65536];
            static int child(void *unused) { pause(); return 0; }
            int main(int argc, char **argv) {
              char path[64];
              snprintf(path, sizeof path, "/proc/%s/fd/%s", argv[1], argv[2]);
              if (mmap(0, 4096, PROT_READ, MAP_SHARED, open(path, O_RDWR), 0) == MAP_FAILED) { perror(path); return 1; }
              int pid = clone(child, stack + sizeof stack, CLONE_VM, 0);
              printf("%d\n", pid); fflush(stdout);
              getchar();
              return kill(pid, 9);
            }
            """;
        using var helper = await CHelper.StartAsync(Source, $"{Environment.ProcessId}", $"{file.Descriptor.Number}");

        Assert.True(Directory.Exists($"/proc/{helper.Line}"), helper.Line);
        Assert.Null(MemoryFileUsers.FindOther(MemoryFileUsers.Scan(), files, helper.Pid, Environment.ProcessId));
        Assert.NotNull(MemoryFileUsers.FindOther(MemoryFileUsers.Scan(), files, Environment.ProcessId, Environment.ProcessId));
    }
}
