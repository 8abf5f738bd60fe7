using System.Diagnostics;

namespace Fleet.Tests.Shared;

/// <summary>A small C program, compiled against the system's headers, as a process of its own that runs until it is disposed.</summary>
internal sealed class CHelper : IDisposable
{
    /// <summary>Maps descriptor argv[2] of process argv[1], argv[3] bytes, shared, as a vhost-user back-end maps what it was sent.</summary>
    public const string MapsMemoryOf = """
        #include <fcntl.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/mman.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
          char path[64];
          snprintf(path, sizeof path, "/proc/%s/fd/%s", argv[1], argv[2]);
          int fd = open(path, O_RDWR);
          if (fd < 0 || mmap(0, strtoul(argv[3], 0, 10), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED) { perror(path); return 1; }
          puts("mapped"); fflush(stdout);
          return getchar();
        }
        """;

    /// <summary>
    /// Pins argv[1] bytes of its own memory as io_uring's registered buffer, or says why the kernel does not. As a library, <c>pin</c> does so
    /// to whatever process has loaded it: the ring's descriptor, or the negative errno.
    /// </summary>
    public const string PinsItsMemory = """
        #include <errno.h>
        #include <linux/io_uring.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <sys/uio.h>
        #include <unistd.h>
        int pin(void *address, unsigned long bytes) {
          struct io_uring_params params;
          struct iovec buffer = { address, bytes };
          memset(&params, 0, sizeof params);
          int ring = syscall(SYS_io_uring_setup, 1, &params);
          return ring < 0 || syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1) < 0 ? -errno : ring;
        }
        int main(int argc, char **argv) {
          unsigned long bytes = strtoul(argv[1], 0, 10);
          int ring = pin(mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), bytes);
          puts(ring < 0 ? strerror(-ring) : "pinned");
          fflush(stdout);
          return getchar();
        }
        """;

    private readonly DirectoryInfo _folder;
    private readonly Process _process;
    private bool _disposed;

    private CHelper(DirectoryInfo folder, Process process) => (_folder, _process, Pid) = (folder, process, process.Id);

    public int Pid { get; private set; }

    /// <summary>What the program printed first.</summary>
    public string Line { get; private set; } = string.Empty;

    /// <summary>Compiles it, starts it, and waits for its first line.</summary>
    public static async Task<CHelper> StartAsync(string source, params string[] arguments)
    {
        var folder = Directory.CreateTempSubdirectory("fleet-c-");
        return await StartAsync(folder, await CompileAsync(source, folder), arguments);
    }

    /// <summary>
    /// The same for a program that is going to be traced (ptrace(2)): as a grandchild, because .NET takes a stop of a child of its own for its
    /// end. Its first line must be its process id.
    /// </summary>
    public static async Task<CHelper> StartTraceableAsync(string source, params string[] arguments)
    {
        var folder = Directory.CreateTempSubdirectory("fleet-c-");
        // A shell without job control gives its background jobs /dev/null as input, unless told otherwise.
        var helper = await StartAsync(
            folder, "/bin/sh", ["-c", "exec 3<&0; \"$@\" <&3 3<&- & exec 3<&- </dev/null; wait $!", "sh", await CompileAsync(source, folder), .. arguments]);
        helper.Pid = int.Parse(helper.Line, System.Globalization.CultureInfo.InvariantCulture);
        return helper;
    }

    private static async Task<CHelper> StartAsync(DirectoryInfo folder, string program, string[] arguments)
    {
        var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        var helper = new CHelper(folder, process);
        helper.Line = await process.StandardOutput.ReadLineAsync() ?? string.Empty;
        return helper;
    }

    /// <summary>Compiles a program into the folder, or with <c>-shared</c> a library.</summary>
    public static async Task<string> CompileAsync(string source, DirectoryInfo folder, params string[] options)
    {
        Requires.Gcc();
        var program = Path.Combine(folder.FullName, "helper");
        await File.WriteAllTextAsync(program + ".c", source);
        await RunAsync("gcc", [.. options, "-o", program, program + ".c"]);
        return program;
    }

    /// <summary>Runs a program to its end, which must be good.</summary>
    /// <returns>What it printed.</returns>
    public static async Task<string> RunAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var output = process.StandardOutput.ReadToEndAsync();
        var errors = await process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        Assert.True(process.ExitCode == 0, $"{program}: {errors}");
        return await output;
    }

    public Task<string?> ReadLineAsync() => _process.StandardOutput.ReadLineAsync();

    /// <summary>The program reads the end of its input, says its last, and ends.</summary>
    /// <returns>What it printed after its first line.</returns>
    public async Task<string> FinishAsync()
    {
        _process.StandardInput.Close();
        var rest = await _process.StandardOutput.ReadToEndAsync().WaitAsync(TimeSpan.FromSeconds(60));
        await _process.WaitForExitAsync();
        return rest.Trim();
    }

    /// <summary>The program reads the end of its input, and ends.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, true))
        {
            return;
        }

        _process.StandardInput.Close();
        _process.WaitForExit();
        _process.Dispose();
        _folder.Delete(recursive: true);
    }
}
