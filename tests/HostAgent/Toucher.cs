using System.Runtime.InteropServices;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>Accesses to memory from user mode, as a VMM's own threads make them: a poisoned page is SIGBUS, which a C handler survives.</summary>
internal sealed partial class Toucher : IDisposable
{
    private const string Source = """
        #include <setjmp.h>
        #include <signal.h>
        static sigjmp_buf back;
        static void bus(int number) { siglongjmp(back, 1); }
        /* How many of the accesses ended in SIGBUS. */
        int touch(volatile char *address, int write, int times) {
          struct sigaction mine = { .sa_handler = bus }, before;
          volatile int buses = 0;
          sigaction(SIGBUS, &mine, &before);
          for (volatile int i = 0; i < times; i++) {
            if (sigsetjmp(back, 1)) { buses++; continue; }
            if (write) *address = 1; else (void)*address;
          }
          sigaction(SIGBUS, &before, 0);
          return buses;
        }
        """;

    private readonly DirectoryInfo _folder;
    private readonly nint _library;
    private readonly TouchFunction _touch;

    private Toucher(DirectoryInfo folder, nint library) =>
        (_folder, _library, _touch) = (folder, library, Marshal.GetDelegateForFunctionPointer<TouchFunction>(NativeLibrary.GetExport(library, "touch")));

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    private delegate int TouchFunction(ulong address, int write, int times);

    public static async Task<Toucher> CreateAsync()
    {
        var folder = Directory.CreateTempSubdirectory("fleet-touch-");
        return new Toucher(folder, NativeLibrary.Load(await CHelper.CompileAsync(Source, folder, "-shared", "-fPIC", "-O1")));
    }

    public int Read(ulong address, int times = 1) => _touch(address, 0, times);

    public int Write(ulong address, int times = 1) => _touch(address, 1, times);

    public void Dispose()
    {
        NativeLibrary.Free(_library);
        _folder.Delete(recursive: true);
    }
}
